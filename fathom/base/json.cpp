#include "fathom/base/json.h"

#include <fmt/core.h>
#include <rapidjson/error/en.h>
#include <rapidjson/reader.h>

#include <charconv>
#include <cmath>

namespace fathom {
namespace {

constexpr size_t kMaxDepth = 128;

const char* kind_name(Json::Kind kind) {
  switch (kind) {
    case Json::Kind::kNull:
      return "null";
    case Json::Kind::kBool:
      return "a boolean";
    case Json::Kind::kNumber:
      return "a number";
    case Json::Kind::kString:
      return "a string";
    case Json::Kind::kArray:
      return "an array";
    case Json::Kind::kObject:
      return "an object";
  }
  return "unknown";
}

[[noreturn]] void wrong_kind(const char* want, Json::Kind got) {
  throw Error(Code::kInvalidArgument, fmt::format("expected {}, found {}", want, kind_name(got)));
}

// Receives RapidJSON's events and builds the ordered value.
struct Builder : rapidjson::BaseReaderHandler<rapidjson::UTF8<>, Builder> {
  Json root;
  std::vector<Json> open;
  std::vector<std::string> keys;
  std::vector<bool> has_key;
  bool too_deep = false;
  bool lone_surrogate = false;

  bool add(Json value) {
    if (open.empty()) {
      root = std::move(value);
      return true;
    }
    Json& top = open.back();
    if (top.is_array()) {
      top.items().push_back(std::move(value));
    } else {
      top.members().emplace_back(std::move(keys.back()), std::move(value));
      keys.pop_back();
    }
    return true;
  }
  bool Null() { return add(Json()); }
  bool Bool(bool b) { return add(Json::boolean(b)); }
  bool RawNumber(const char* s, rapidjson::SizeType n, bool) {
    return add(Json::number_text(std::string(s, n)));
  }
  bool String(const char* s, rapidjson::SizeType n, bool) {
    return is_unicode({s, n}) && add(Json::string({s, n}));
  }
  bool Key(const char* s, rapidjson::SizeType n, bool) {
    keys.emplace_back(s, n);
    return is_unicode({s, n});
  }
  // RapidJSON lets the escape of a lone second surrogate pass, as bytes that are not UTF-8.
  bool is_unicode(std::string_view text) {
    for (size_t at = text.find('\xED'); at != text.npos; at = text.find('\xED', at + 1))
      if (static_cast<unsigned char>(text[at + 1]) >= 0xA0) lone_surrogate = true;
    return !lone_surrogate;
  }
  bool begin(Json value) {
    if (open.size() >= kMaxDepth) {
      too_deep = true;
      return false;
    }
    open.push_back(std::move(value));
    return true;
  }
  bool end() {
    Json value = std::move(open.back());
    open.pop_back();
    return add(std::move(value));
  }
  bool StartObject() { return begin(Json::object()); }
  bool EndObject(rapidjson::SizeType) { return end(); }
  bool StartArray() { return begin(Json::array()); }
  bool EndArray(rapidjson::SizeType) { return end(); }
};

// MemoryStream in RapidJSON 1.1 reads past the end as '\0', which is what the reader expects.
struct TextStream {
  using Ch = char;
  const char *begin, *at, *end;
  Ch Peek() const { return at == end ? '\0' : *at; }
  Ch Take() { return at == end ? '\0' : *at++; }
  size_t Tell() const { return static_cast<size_t>(at - begin); }
  Ch* PutBegin() { return nullptr; }
  void Put(Ch) {}
  void Flush() {}
  size_t PutEnd(Ch*) { return 0; }
};

void dump_to(const Json& v, int indent, int depth, std::string& out) {
  const auto line = [&](int d) {
    if (indent > 0) {
      out += '\n';
      out.append(static_cast<size_t>(indent * d), ' ');
    }
  };
  const char* comma = indent < 0 ? ", " : ",";
  const char* colon = indent == 0 ? ":" : ": ";
  switch (v.kind()) {
    case Json::Kind::kNull:
      out += "null";
      break;
    case Json::Kind::kBool:
      out += v.as_bool() ? "true" : "false";
      break;
    case Json::Kind::kNumber:
      out += v.raw_number();
      break;
    case Json::Kind::kString:
      out += json_quote(v.as_string());
      break;
    case Json::Kind::kArray: {
      out += '[';
      bool first = true;
      for (const Json& item : v.items()) {
        if (!first) out += comma;
        first = false;
        line(depth + 1);
        dump_to(item, indent, depth + 1, out);
      }
      if (!first) line(depth);
      out += ']';
      break;
    }
    case Json::Kind::kObject: {
      out += '{';
      bool first = true;
      for (const auto& [key, value] : v.members()) {
        if (!first) out += comma;
        first = false;
        line(depth + 1);
        out += json_quote(key);
        out += colon;
        dump_to(value, indent, depth + 1, out);
      }
      if (!first) line(depth);
      out += '}';
      break;
    }
  }
}

}  // namespace

Json Json::boolean(bool value) {
  Json j;
  j.kind_ = Kind::kBool;
  j.bool_ = value;
  return j;
}

Json Json::number(int64_t value) { return number_text(std::to_string(value)); }

Json Json::number(double value) {
  if (!std::isfinite(value)) return {};
  return number_text(fmt::format("{}", value));
}

Json Json::number_text(std::string text) {
  Json j;
  j.kind_ = Kind::kNumber;
  j.text_ = std::move(text);
  return j;
}

Json Json::string(std::string value) {
  Json j;
  j.kind_ = Kind::kString;
  j.text_ = std::move(value);
  return j;
}

Json Json::array(std::vector<Json> items) {
  Json j;
  j.kind_ = Kind::kArray;
  j.items_ = std::move(items);
  return j;
}

Json Json::object(std::vector<Member> members) {
  Json j;
  j.kind_ = Kind::kObject;
  j.members_ = std::move(members);
  return j;
}

Json Json::parse(std::string_view text, const std::string& what) {
  using namespace rapidjson;
  TextStream stream{text.data(), text.data(), text.data() + text.size()};
  Builder builder;
  Reader reader;
  const ParseResult result =
      reader.Parse<kParseNumbersAsStringsFlag | kParseValidateEncodingFlag | kParseIterativeFlag>(
          stream, builder);
  if (builder.too_deep)
    throw Error(Code::kInvalidArgument,
                fmt::format("{}: JSON is nested deeper than {} levels", what, kMaxDepth));
  if (builder.lone_surrogate)
    throw Error(Code::kInvalidArgument,
                fmt::format("{}: not valid JSON at byte {}: an escape of half a surrogate pair",
                            what, result.Offset()));
  if (!result)
    throw Error(Code::kInvalidArgument,
                fmt::format("{}: not valid JSON at byte {}: {}", what, result.Offset(),
                            GetParseError_En(result.Code())));
  return std::move(builder.root);
}

std::vector<Json> Json::parse_lines(std::string_view text, const std::string& what) {
  std::vector<Json> out;
  size_t number = 0;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    text = end == text.npos ? std::string_view{} : text.substr(end + 1);
    ++number;
    if (line.find_first_not_of(" \t\r") == line.npos) continue;
    out.push_back(parse(line, fmt::format("{}:{}", what, number)));
  }
  return out;
}

bool Json::as_bool() const {
  if (!is_bool()) wrong_kind("a boolean", kind_);
  return bool_;
}

int64_t Json::as_int() const {
  if (!is_number()) wrong_kind("an integer", kind_);
  int64_t value = 0;
  const char* end = text_.data() + text_.size();
  const auto [p, ec] = std::from_chars(text_.data(), end, value);
  if (ec == std::errc() && p == end) return value;
  const double d = as_double();
  if (d != std::floor(d) || std::fabs(d) > 9.0e15)
    throw Error(Code::kInvalidArgument, fmt::format("expected an integer, found {}", text_));
  return static_cast<int64_t>(d);
}

double Json::as_double() const {
  if (!is_number()) wrong_kind("a number", kind_);
  double value = 0;
  const auto [p, ec] = std::from_chars(text_.data(), text_.data() + text_.size(), value);
  if (ec != std::errc())
    throw Error(Code::kInvalidArgument, fmt::format("the number {} is out of range", text_));
  return value;
}

const std::string& Json::as_string() const {
  if (!is_string()) wrong_kind("a string", kind_);
  return text_;
}

const std::string& Json::raw_number() const {
  if (!is_number()) wrong_kind("a number", kind_);
  return text_;
}

const std::vector<Json>& Json::items() const {
  if (!is_array()) wrong_kind("an array", kind_);
  return items_;
}

const std::vector<Json::Member>& Json::members() const {
  if (!is_object()) wrong_kind("an object", kind_);
  return members_;
}

std::vector<Json>& Json::items() {
  if (!is_array()) wrong_kind("an array", kind_);
  return items_;
}

std::vector<Json::Member>& Json::members() {
  if (!is_object()) wrong_kind("an object", kind_);
  return members_;
}

const Json* Json::find(std::string_view key) const {
  if (!is_object()) return nullptr;
  for (auto it = members_.rbegin(); it != members_.rend(); ++it)
    if (it->first == key) return &it->second;
  return nullptr;
}

const Json& Json::at(std::string_view key) const {
  if (!is_object()) wrong_kind("an object", kind_);
  const Json* value = find(key);
  if (!value) throw Error(Code::kInvalidArgument, fmt::format("the key \"{}\" is missing", key));
  return *value;
}

void Json::set(std::string key, Json value) {
  for (auto& [k, v] : members()) {
    if (k == key) {
      v = std::move(value);
      return;
    }
  }
  members_.emplace_back(std::move(key), std::move(value));
}

void Json::push(Json value) { items().push_back(std::move(value)); }

std::string Json::dump(int indent) const {
  std::string out;
  dump_to(*this, indent, 0, out);
  return out;
}

std::string json_quote(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      case '\b':
        out += "\\b";
        break;
      case '\f':
        out += "\\f";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20)
          out += fmt::format("\\u{:04x}", c);
        else
          out += c;
    }
  }
  out += '"';
  return out;
}

}  // namespace fathom
