#include "fathom/cli/args.h"

#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>

namespace fathom {
namespace {

bool is_switch(const Option& o) { return std::holds_alternative<bool*>(o.target); }

// Breaks `text` at blanks into lines of at most `width` columns, `indent` blanks before all but the
// first.
std::string wrap(const std::string& text, size_t indent, size_t width) {
  std::string out, word;
  size_t column = 0;
  for (size_t i = 0; i <= text.size(); ++i) {
    if (i < text.size() && text[i] != ' ') {
      word += text[i];
      continue;
    }
    if (column > 0 && column + 1 + word.size() > width) {
      out += "\n" + std::string(indent, ' ');
      column = 0;
    } else if (column > 0) {
      out += ' ';
      ++column;
    }
    out += word;
    column += word.size();
    word.clear();
  }
  return out;
}

std::string option_row(const Option& o) {
  constexpr size_t kDocColumn = 32, kDocWidth = 68;
  std::string left = "  " + flag_name(o.name);
  const std::string type = option_type_name(o);
  const std::string value = option_text(o);
  if (!type.empty()) left += " " + type;
  std::string doc = o.doc;
  if (is_switch(o)) {
    if (value == "true")
      doc += fmt::format(" (on; --no-{} turns it off)", flag_name(o.name).substr(2));
  } else if (!value.empty()) {
    doc += fmt::format(" [{}]", value);
  }
  if (left.size() + 2 > kDocColumn) {
    left += "\n" + std::string(kDocColumn, ' ');
  } else {
    left.resize(kDocColumn, ' ');
  }
  return left + wrap(doc, kDocColumn, kDocWidth) + "\n";
}

}  // namespace

std::string flag_name(const std::string& option_name) {
  std::string flag = "--" + option_name;
  std::ranges::replace(flag, '_', '-');
  return flag;
}

CommandLine::CommandLine(std::string command, std::string summary)
    : command_(std::move(command)), summary_(std::move(summary)) {}

void CommandLine::positional(std::string name, std::string* target, std::string doc) {
  const size_t at_least = target->empty() ? 1 : 0;
  positionals_.push_back({std::move(name), target, nullptr, std::move(doc), at_least});
}

void CommandLine::positionals(std::string name, std::vector<std::string>* target, std::string doc,
                              size_t at_least) {
  positionals_.push_back({std::move(name), nullptr, target, std::move(doc), at_least});
}

OptionSet& CommandLine::options(std::string heading) {
  for (Group& g : groups_)
    if (g.heading == heading) return g.options;
  return groups_.emplace_back(Group{std::move(heading), {}}).options;
}

std::string CommandLine::help() const {
  std::string out = fmt::format("fathom {}: {}\n\nusage: fathom {}", command_, summary_, command_);
  for (const Positional& p : positionals_) {
    const std::string word = p.many ? p.name + "..." : p.name;
    out += p.at_least ? " " + word : " [" + word + "]";
  }
  out += groups_.empty() ? "\n" : " [--options]\n";
  if (!positionals_.empty()) out += "\narguments:\n";
  for (const Positional& p : positionals_) {
    std::string doc = p.doc;
    if (p.one && !p.one->empty()) doc += fmt::format(" [{}]", *p.one);
    out += fmt::format("  {:<30}{}\n", p.name, wrap(doc, 32, 68));
  }
  for (const Group& g : groups_) {
    out += fmt::format("\n{}:\n", g.heading);
    for (const Option& o : g.options.all()) out += option_row(o);
  }
  if (!examples_.empty()) out += "\nexamples:\n";
  for (const std::string& e : examples_) out += fmt::format("  {}\n", e);
  return out;
}

std::string CommandLine::help_hint() const {
  return fmt::format("run `fathom {} --help`", command_);
}

void CommandLine::refuse(const std::string& word) const {
  if (word.size() < 2 || word[0] != '-') {
    throw UsageError(fmt::format("expected no further argument, found \"{}\"", word), help_hint());
  }
  std::vector<std::string> names = {"--help"};
  for (const Group& g : groups_)
    for (const Option& o : g.options.all()) names.push_back(flag_name(o.name));
  const std::string given = word.substr(0, word.find('='));
  const std::string near = nearest_name(given, names);
  throw UsageError(fmt::format("expected an option of `fathom {}`, found \"{}\"", command_, given),
                   near.empty() ? help_hint() : fmt::format("did you mean {}?", near));
}

bool CommandLine::parse(Args args) {
  const auto end_of_flags = std::ranges::find(args, "--");
  if (std::any_of(args.begin(), end_of_flags,
                  [](const auto& a) { return a == "--help" || a == "-h"; })) {
    fmt::print("{}", help());
    return false;
  }
  CLI::App app;
  app.set_help_flag();
  app.allow_extras();
  for (Group& g : groups_) {
    for (const Option& o : g.options.all()) {
      const std::string flag = flag_name(o.name);
      if (is_switch(o)) {
        app.add_flag(flag + ",!--no-" + flag.substr(2), *std::get<bool*>(o.target));
        continue;
      }
      app.add_option_function<std::string>(flag,
                                           [&g, &o, flag](const std::string& text) {
                                             try {
                                               g.options.set(o.name, text);
                                             } catch (const Error& e) {
                                               const std::string prefix =
                                                   fmt::format("option \"{}\"", o.name);
                                               std::string message = e.message();
                                               if (message.starts_with(prefix))
                                                 message.replace(0, prefix.size(), flag);
                                               throw UsageError(std::move(message), e.hint());
                                             }
                                           })
          ->type_name(option_type_name(o));
    }
  }
  for (const Positional& p : positionals_) {
    if (p.one) app.add_option(p.name, *p.one);
    if (p.many) app.add_option(p.name, *p.many);
  }
  std::vector<std::string> reversed(args.rbegin(),
                                    args.rend());  // CLI11 takes the words from the back
  try {
    app.parse(reversed);
  } catch (const CLI::ParseError& e) {
    std::string message = e.what();
    std::ranges::replace(message, '\n', ' ');
    throw UsageError(std::move(message), help_hint());
  }
  std::vector<std::string> left = app.remaining();
  std::erase(left, "--");  // CLI11 keeps the mark after which no word is a flag
  if (!left.empty()) refuse(left.front());
  for (const Positional& p : positionals_) {
    const size_t given = p.one ? !p.one->empty() : p.many->size();
    if (given < p.at_least) {
      throw UsageError(
          fmt::format("expected {} ({}), found {}", p.name, p.doc,
                      given == 0 ? "nothing" : fmt::format("{} of {}", given, p.at_least)),
          help_hint());
    }
  }
  return true;
}

}  // namespace fathom
