// The command line of one command, made from OptionSets and positionals. Not a parser of its own:
// args.cpp hides CLI11.
//
//   int cmd_report(Args args) {
//     ReportOptions options;                       // has fields(OptionSet&)
//     std::string run;
//     CommandLine line("report", "write a run as one HTML page");
//     line.positional("RUN", &run, "run folder");
//     options.fields(line.options());
//     if (!line.parse(args)) return kExitOk;       // --help was printed
#pragma once

#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "fathom/base/error.h"
#include "fathom/base/options.h"
#include "fathom/cli/command.h"

namespace fathom {

// The command line was wrong: exit code kExitUsage.
class UsageError : public Error {
 public:
  explicit UsageError(std::string message, std::string hint = "")
      : Error(Code::kInvalidArgument, std::move(message), std::move(hint)) {}
};

class CommandLine {
 public:
  CommandLine(std::string command, std::string summary);

  // One word that must be given, unless the target already holds a default.
  void positional(std::string name, std::string* target, std::string doc);
  // All remaining words, at least `at_least` of them; the last positional to be declared.
  void positionals(std::string name, std::vector<std::string>* target, std::string doc,
                   size_t at_least);

  // Options under a heading of the help text. The reference stays valid for the life of the
  // CommandLine.
  OptionSet& options(std::string heading = "options");

  // Lines shown at the end of the help text.
  void example(std::string text) { examples_.push_back(std::move(text)); }

  // Stores what `args` say into the targets. False when --help was asked for and printed; then the
  // command returns kExitOk. Throws UsageError: unknown flags (with the nearest known one), missing
  // words, values of the wrong kind. A switch --x that is on by default is turned off by --no-x.
  // Lists are comma separated.
  bool parse(Args args);

  std::string help() const;

 private:
  struct Positional {
    std::string name;
    std::string* one;                // this or
    std::vector<std::string>* many;  // that
    std::string doc;
    size_t at_least;
  };
  struct Group {
    std::string heading;
    OptionSet options;
  };
  std::string help_hint() const;
  [[noreturn]] void refuse(const std::string& word) const;

  std::string command_, summary_;
  std::vector<Positional> positionals_;
  std::deque<Group> groups_;
  std::vector<std::string> examples_;
};

std::string flag_name(const std::string& option_name);  // "top_p" -> "--top-p"

}  // namespace fathom
