#include "fathom/text/json_repair.h"

#include "fathom/text/utf8.h"

namespace fathom {
namespace {

constexpr int kMaxDepth = 64;

bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

std::string_view trim(std::string_view text) {
  while (!text.empty() && is_blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_blank(text.back())) text.remove_suffix(1);
  return text;
}

std::optional<Json> parse_strict(std::string_view text) {
  try {
    return Json::parse(text, "value");
  } catch (const Error&) {
    return std::nullopt;
  }
}

class Lenient {
 public:
  explicit Lenient(std::string_view text) : in_(text) {}

  std::optional<Json> run() {
    std::optional<Json> value = read(0);
    blanks();
    if (!value || at_ != in_.size()) return std::nullopt;
    return value;
  }

 private:
  bool ended() const { return at_ >= in_.size(); }
  void blanks() {
    while (!ended() && is_blank(in_[at_])) ++at_;
  }
  bool take(char c) {
    blanks();
    if (ended() || in_[at_] != c) return false;
    ++at_;
    return true;
  }

  std::optional<Json> read(int depth) {
    blanks();
    if (ended() || depth > kMaxDepth) return std::nullopt;
    const char c = in_[at_];
    if (c == '{') return object(depth);
    if (c == '[') return array(depth);
    if (c == '"' || c == '\'') return Json::string(quoted(c));
    return word();
  }

  std::optional<Json> object(int depth) {
    Json out = Json::object();
    ++at_;
    for (;;) {
      if (take('}')) return out;
      blanks();
      if (ended()) return out;  // the end is missing
      const char c = in_[at_];
      const std::string key = c == '"' || c == '\'' ? quoted(c) : bare_key();
      if (key.empty() && c != '"' && c != '\'') return std::nullopt;
      if (!take(':')) {
        blanks();
        if (ended()) return out;
        return std::nullopt;
      }
      blanks();
      if (ended()) return out;
      std::optional<Json> value = read(depth + 1);
      if (!value) return std::nullopt;
      out.members().emplace_back(key, std::move(*value));
      if (!take(',') && !ended() && in_[at_] != '}') return std::nullopt;
    }
  }

  std::optional<Json> array(int depth) {
    Json out = Json::array();
    ++at_;
    for (;;) {
      if (take(']')) return out;
      blanks();
      if (ended()) return out;
      std::optional<Json> value = read(depth + 1);
      if (!value) return std::nullopt;
      out.push(std::move(*value));
      if (!take(',') && !ended() && in_[at_] != ']') return std::nullopt;
    }
  }

  std::string bare_key() {
    const size_t begin = at_;
    while (!ended() && (std::isalnum(static_cast<unsigned char>(in_[at_])) || in_[at_] == '_' ||
                        in_[at_] == '-' || in_[at_] == '$'))
      ++at_;
    return std::string(in_.substr(begin, at_ - begin));
  }

  std::string quoted(char quote) {
    std::string out;
    for (++at_; !ended() && in_[at_] != quote; ++at_) {
      if (in_[at_] != '\\' || at_ + 1 >= in_.size()) {
        out += in_[at_];
        continue;
      }
      const char c = in_[++at_];
      switch (c) {
        case 'n':
          out += '\n';
          break;
        case 't':
          out += '\t';
          break;
        case 'r':
          out += '\r';
          break;
        case 'b':
          out += '\b';
          break;
        case 'f':
          out += '\f';
          break;
        case 'u':
          unicode(out);
          break;
        default:
          out += c;
      }
    }
    if (!ended()) ++at_;
    return out;
  }

  // Four digits after \u; at_ stays on the last character of the escape. Pairs of surrogates make
  // one character.
  void unicode(std::string& out) {
    std::optional<unsigned> code = hex4(at_ + 1);
    if (!code) {
      out += "\\u";
      return;
    }
    at_ += 4;
    char32_t c = *code;
    if (c >= 0xD800 && c < 0xDC00 && in_.substr(at_ + 1, 2) == "\\u") {
      const std::optional<unsigned> low = hex4(at_ + 3);
      if (low && *low >= 0xDC00 && *low < 0xE000) {
        c = 0x10000 + ((c - 0xD800) << 10) + (*low - 0xDC00);
        at_ += 6;
      }
    }
    append_utf8(c >= 0xD800 && c < 0xE000 ? kReplacementChar : c, out);
  }

  std::optional<unsigned> hex4(size_t at) const {
    const std::string digits(in_.substr(std::min(at, in_.size()), 4));
    if (digits.size() < 4 || digits.find_first_not_of("0123456789abcdefABCDEF") != digits.npos)
      return std::nullopt;
    return static_cast<unsigned>(std::stoul(digits, nullptr, 16));
  }

  // A number, or a literal of JSON or Python.
  std::optional<Json> word() {
    const size_t begin = at_;
    while (!ended() && in_.substr(at_, 1).find_first_of(",]}: \t\r\n") == std::string_view::npos)
      ++at_;
    const std::string_view text = in_.substr(begin, at_ - begin);
    if (text == "true" || text == "True") return Json::boolean(true);
    if (text == "false" || text == "False") return Json::boolean(false);
    if (text == "null" || text == "None") return Json();
    std::optional<Json> number = parse_strict(text);
    return number && number->is_number() ? number : std::nullopt;
  }

  std::string_view in_;
  size_t at_ = 0;
};

// Bits of the JSON types.
enum Types : unsigned {
  kNone = 0,
  kString = 1,
  kNumber = 2,
  kBool = 4,
  kNull = 8,
  kArray = 16,
  kObject = 32,
  kAny = 63,
};

unsigned type_of(const Json& value) {
  switch (value.kind()) {
    case Json::Kind::kNull:
      return kNull;
    case Json::Kind::kBool:
      return kBool;
    case Json::Kind::kNumber:
      return kNumber;
    case Json::Kind::kString:
      return kString;
    case Json::Kind::kArray:
      return kArray;
    case Json::Kind::kObject:
      return kObject;
  }
  return kNone;
}

unsigned named_type(const Json& name) {
  if (!name.is_string()) return kAny;
  const std::string& text = name.as_string();
  if (text == "string") return kString;
  if (text == "number" || text == "integer") return kNumber;
  if (text == "boolean") return kBool;
  if (text == "null") return kNull;
  if (text == "array") return kArray;
  if (text == "object") return kObject;
  return kAny;
}

unsigned allowed_types(const Json* schema, int depth = 0) {
  if (!schema || !schema->is_object() || depth > 8) return kAny;
  const auto join = [](const std::vector<Json>& items, const auto& one) {
    unsigned out = kNone;
    for (const Json& item : items) out |= one(item);
    return out == kNone ? static_cast<unsigned>(kAny) : out;
  };
  if (const Json* type = schema->find("type"))
    return type->is_array() ? join(type->items(), named_type) : named_type(*type);
  if (const Json* values = schema->find("enum"); values && values->is_array())
    return join(values->items(), type_of);
  if (const Json* value = schema->find("const")) return type_of(*value);
  for (const char* key : {"anyOf", "oneOf"})
    if (const Json* parts = schema->find(key); parts && parts->is_array())
      return join(parts->items(),
                  [&](const Json& part) { return allowed_types(&part, depth + 1); });
  return kAny;
}

}  // namespace

std::optional<Json> parse_lenient_json(std::string_view text) {
  if (utf8_valid_prefix(text) == text.size()) return Lenient(text).run();
  return Lenient(utf8_lossy(text)).run();
}

TextFit text_fit(const Json* schema) {
  const unsigned types = allowed_types(schema);
  if (types == kString) return TextFit::kOnlyText;
  return types & kString ? TextFit::kMayBeText : TextFit::kNoText;
}

const Json* property_schema(const Json* function, std::string_view property) {
  const Json* parameters = function ? function->find("parameters") : nullptr;
  const Json* properties = parameters ? parameters->find("properties") : nullptr;
  return properties ? properties->find(property) : nullptr;
}

std::string repair_argument(std::string_view raw, const Json* schema) {
  if (utf8_valid_prefix(raw) != raw.size()) return repair_argument(utf8_lossy(raw), schema);
  const unsigned types = allowed_types(schema);
  const std::string_view text = trim(raw);
  const auto fits = [&](const Json& value) { return (type_of(value) & types) != 0; };
  const auto as_string = [&] { return json_quote(raw); };
  if (const std::optional<Json> value = parse_strict(text)) {
    if (fits(*value)) return std::string(text);
    if (value->is_string()) {  // written twice: "[1, 2]" for [1, 2]
      const std::optional<Json> inner = parse_lenient_json(value->as_string());
      return inner && fits(*inner) ? inner->dump() : std::string(text);
    }
    return types & kString ? as_string() : std::string(text);
  }
  if (types == kString) return as_string();
  if (const std::optional<Json> value = parse_lenient_json(text); value && fits(*value))
    return value->dump();
  return as_string();
}

}  // namespace fathom
