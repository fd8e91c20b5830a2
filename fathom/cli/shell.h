// Runs a command that the person typed.
#pragma once

#include <string>
#include <string_view>

namespace fathom {

struct CommandOutput {
  std::string text;  // of its standard output
  int status = 0;    // exit status, or 128 and the number of the signal that ended it
  bool timed_out = false;
};

// By /bin/sh, with `input` as its standard input; waits for its end, but no longer than limit_s (0:
// no limit): then it and the processes that it started are killed. Throws Error when it cannot be
// started.
CommandOutput run_command(const std::string& command, std::string_view input, double limit_s = 0);

}  // namespace fathom
