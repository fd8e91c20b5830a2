// What a command is, and the exit codes that all commands share.
#pragma once

#include <span>
#include <string>

namespace fathom {

using Args = std::span<const std::string>;  // the words after the command's name

inline constexpr int kExitOk = 0;
inline constexpr int kExitFailed = 1;  // the work could not be done, or its check did not hold
inline constexpr int kExitUsage = 2;   // the command line was wrong

struct Command {
  const char* name;
  const char* summary;  // one line without a full stop, shown by `fathom --help`; null: not listed
  int (*run)(
      Args args);  // returns an exit code; may throw Error (kExitFailed) or UsageError (kExitUsage)
};

// A command made of parts, `fathom data pack`: finds the part and runs it, or lists them for
// --help.
int run_part(const char* command, const char* summary, std::span<const Command> parts, Args args);

std::span<const Command> commands();  // sorted by name

// Inside a catch clause: says on stderr what the exception says, and returns the exit code for it.
int report_error();

// The whole program behind main(): finds the command, runs it, turns exceptions into a message on
// stderr and an exit code.
int run_fathom(Args args);

}  // namespace fathom
