#include "fathom/base/options.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <numeric>

#include "fathom/base/error.h"

namespace fathom {
namespace {

template <class... F>
struct Overloaded : F... {
  using F::operator()...;
};
template <class... F>
Overloaded(F...) -> Overloaded<F...>;  // clang before 17 does not deduce aggregates by itself

std::vector<std::string> split_commas(std::string_view text) {
  while (text.ends_with(',')) text.remove_suffix(1);  // the text of a list never ends so
  std::vector<std::string> out;
  while (!text.empty()) {
    const size_t comma = text.find(',');
    out.emplace_back(text.substr(0, comma));
    text = comma == text.npos ? std::string_view{} : text.substr(comma + 1);
  }
  return out;
}

template <class T>
bool parse_number(std::string_view text, T* out) {
  const auto [p, ec] = std::from_chars(text.data(), text.data() + text.size(), *out);
  return ec == std::errc() && p == text.data() + text.size();
}

}  // namespace

const Option* OptionSet::find(std::string_view name) const {
  for (const Option& o : options_)
    if (o.name == name) return &o;
  return nullptr;
}

void OptionSet::set(std::string_view name, std::string_view text) {
  const Option* option = find(name);
  if (!option) {
    std::vector<std::string> names;
    for (const Option& o : options_) names.push_back(o.name);
    const std::string near = nearest_name(name, names);
    throw Error(Code::kInvalidArgument, fmt::format("unknown option \"{}\"", name),
                near.empty() ? "" : fmt::format("did you mean \"{}\"?", near));
  }
  const auto wrong = [&](const char* want) {
    throw Error(Code::kInvalidArgument,
                fmt::format("option \"{}\": expected {}, found \"{}\"", name, want, text));
  };
  std::visit(Overloaded{
                 [&](bool* v) {
                   if (text == "true" || text == "1")
                     *v = true;
                   else if (text == "false" || text == "0")
                     *v = false;
                   else
                     wrong("true or false");
                 },
                 [&](int64_t* v) {
                   if (!parse_number(text, v)) wrong("an integer");
                 },
                 [&](double* v) {
                   if (!parse_number(text, v)) wrong("a number");
                 },
                 [&](std::string* v) { *v = text; },
                 [&](std::vector<std::string>* v) { *v = split_commas(text); },
                 [&](std::vector<double>* v) {
                   v->clear();
                   for (const std::string& part : split_commas(text)) {
                     double d = 0;
                     if (!parse_number(part, &d)) wrong("numbers separated by commas");
                     v->push_back(d);
                   }
                 },
             },
             option->target);
}

std::string option_text(const Option& option) {
  return std::visit(
      Overloaded{
          [](bool* v) { return std::string(*v ? "true" : "false"); },
          [](int64_t* v) { return std::to_string(*v); },
          [](double* v) { return fmt::format("{}", *v); },
          [](std::string* v) { return *v; },
          [](std::vector<std::string>* v) { return fmt::format("{}", fmt::join(*v, ",")); },
          [](std::vector<double>* v) { return fmt::format("{}", fmt::join(*v, ",")); },
      },
      option.target);
}

std::string option_type_name(const Option& option) {
  return std::visit(Overloaded{
                        [](bool*) { return ""; },
                        [](int64_t*) { return "INT"; },
                        [](double*) { return "FLOAT"; },
                        [](std::string*) { return "TEXT"; },
                        [](auto*) { return "LIST"; },
                    },
                    option.target);
}

std::vector<std::pair<std::string, std::string>> OptionSet::values() const {
  std::vector<std::pair<std::string, std::string>> out;
  for (const Option& o : options_) out.emplace_back(o.name, option_text(o));
  return out;
}

std::string nearest_name(std::string_view name, const std::vector<std::string>& candidates) {
  std::string best;
  size_t best_distance = std::max<size_t>(2, name.size() / 3) + 1;
  for (const std::string& c : candidates) {
    std::vector<size_t> row(c.size() + 1);
    std::iota(row.begin(), row.end(), size_t{0});
    for (size_t i = 1; i <= name.size(); ++i) {
      size_t diagonal = row[0];
      row[0] = i;
      for (size_t j = 1; j <= c.size(); ++j) {
        const size_t substitute = diagonal + (name[i - 1] != c[j - 1]);
        diagonal = row[j];
        row[j] = std::min({row[j] + 1, row[j - 1] + 1, substitute});
      }
    }
    if (row[c.size()] < best_distance) {
      best_distance = row[c.size()];
      best = c;
    }
  }
  return best;
}

}  // namespace fathom
