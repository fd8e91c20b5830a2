// The program `fathom`. Commands are in cmd_*.cpp, their table in commands.cpp.
#include <string>
#include <vector>

#include "fathom/cli/command.h"

int main(int argc, char** argv) {
  const std::vector<std::string> args(argv + (argc > 0), argv + argc);
  return fathom::run_fathom(args);
}
