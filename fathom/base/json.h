// JSON as an ordered value: key order, duplicate keys and the raw text of numbers are kept, so that
// what is printed again equals what was read. Depth and size are limited. The only place that knows
// the JSON library is json.cpp.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "fathom/base/error.h"

namespace fathom {

class Json {
 public:
  enum class Kind : uint8_t { kNull, kBool, kNumber, kString, kArray, kObject };
  using Member = std::pair<std::string, Json>;

  Json() = default;
  static Json boolean(bool value);
  static Json number(int64_t value);
  // shortest text that reads back as the same double; NaN and inf become null
  static Json number(double value);
  static Json number_text(std::string text);  // raw text, must be a JSON number
  static Json string(std::string value);
  static Json array(std::vector<Json> items = {});
  static Json object(std::vector<Member> members = {});

  // Throws Error (kInvalidArgument) with byte offset; `what` names the source in messages (a path,
  // "request body").
  static Json parse(std::string_view text, const std::string& what);
  // One document per line, blank lines skipped; an error names the line.
  static std::vector<Json> parse_lines(std::string_view text, const std::string& what);

  Kind kind() const { return kind_; }
  bool is_null() const { return kind_ == Kind::kNull; }
  bool is_bool() const { return kind_ == Kind::kBool; }
  bool is_number() const { return kind_ == Kind::kNumber; }
  bool is_string() const { return kind_ == Kind::kString; }
  bool is_array() const { return kind_ == Kind::kArray; }
  bool is_object() const { return kind_ == Kind::kObject; }

  // Typed reads throw Error that says which kind was expected and which came.
  bool as_bool() const;
  int64_t as_int() const;  // integral numbers only (2.0 counts)
  double as_double() const;
  const std::string& as_string() const;
  const std::string& raw_number() const;
  const std::vector<Json>& items() const;
  const std::vector<Member>& members() const;

  // last member of that name; null when absent or not an object
  const Json* find(std::string_view key) const;
  const Json& at(std::string_view key) const;  // throws Error that names the missing key
  std::vector<Json>& items();
  std::vector<Member>& members();
  void set(std::string key, Json value);  // replaces or appends; *this must be an object
  void push(Json value);                  // *this must be an array

  // indent < 0: one line, separators ", " and ": " as Python's json.dumps(ensure_ascii=False);
  // indent 0: one line without blanks; indent > 0: pretty.
  std::string dump(int indent = -1) const;

 private:
  Kind kind_ = Kind::kNull;
  bool bool_ = false;
  std::string text_;  // string value, or raw number
  std::vector<Json> items_;
  std::vector<Member> members_;
};

std::string json_quote(std::string_view text);  // with the quotes; non-ASCII kept

}  // namespace fathom
