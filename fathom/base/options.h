// Options as data: a struct lists its fields once, with names and doc strings; command lines,
// recipes (TOML) and stored configurations are all derived from that list.
//
//   struct SampleOptions {
//     double temperature = 1.0;
//     void fields(OptionSet& o) { o.add("temperature", &temperature, "0 means greedy"); }
//   };
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace fathom {

struct Option {
  std::string name;  // snake_case; the command line shows it with dashes
  std::variant<bool*, int64_t*, double*, std::string*, std::vector<std::string>*,
               std::vector<double>*>
      target;
  std::string doc;
};

class OptionSet {
 public:
  template <class T>
  void add(std::string name, T* target, std::string doc) {
    options_.push_back({std::move(name), target, std::move(doc)});
  }
  const std::vector<Option>& all() const { return options_; }
  const Option* find(std::string_view name) const;

  // Sets one option from text; throws Error that names the option, what it takes, and the nearest
  // known name. Lists take comma-separated text.
  void set(std::string_view name, std::string_view text);
  // Every option as (name, text), in order; set() of each reproduces the struct.
  std::vector<std::pair<std::string, std::string>> values() const;

 private:
  std::vector<Option> options_;
};

std::string option_text(const Option& option);  // the value as text
// "INT", "FLOAT", "TEXT", "LIST", "" for a switch
std::string option_type_name(const Option& option);
// The candidate nearest to `name` by edit distance, or "" when none is near.
std::string nearest_name(std::string_view name, const std::vector<std::string>& candidates);

}  // namespace fathom
