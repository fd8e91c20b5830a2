#include "fathom/text/python_json.h"

#include <charconv>
#include <cmath>
#include <cstdlib>
#include <unordered_map>
#include <vector>

#include "fathom/base/json.h"

namespace fathom {
namespace {

// repr(float): shortest digits that read back, an exponent only below 1e-4 and from 1e16 on.
std::string repr(double value) {
  if (std::isinf(value)) return value < 0 ? "-Infinity" : "Infinity";
  char buffer[40];
  const auto end =
      std::to_chars(buffer, buffer + sizeof(buffer), value, std::chars_format::scientific);
  std::string_view text(buffer, static_cast<size_t>(end.ptr - buffer));
  std::string out;
  if (text.starts_with('-')) {
    out = "-";
    text.remove_prefix(1);
  }
  const size_t e = text.find('e');
  const int exponent = std::atoi(std::string(text.substr(e + 1)).c_str());
  std::string digits(1, text[0]);
  if (e > 2) digits += text.substr(2, e - 2);
  const int count = static_cast<int>(digits.size());
  if (exponent < -4 || exponent >= 16) {
    out += digits[0];
    if (count > 1) out += "." + digits.substr(1);
    out += exponent < 0 ? "e-" : "e+";
    const std::string power = std::to_string(std::abs(exponent));
    return out + (power.size() < 2 ? "0" : "") + power;
  }
  if (exponent < 0)
    return out + "0." + std::string(static_cast<size_t>(-exponent - 1), '0') + digits;
  if (exponent >= count - 1)
    return out + digits + std::string(static_cast<size_t>(exponent - count + 1), '0') + ".0";
  const auto point = static_cast<size_t>(exponent + 1);
  return out + digits.substr(0, point) + "." + digits.substr(point);
}

void dump_to(const Json& v, std::string& out) {
  switch (v.kind()) {
    case Json::Kind::kNumber:
      out += python_number(v.raw_number());
      break;
    case Json::Kind::kArray: {
      out += '[';
      const char* comma = "";
      for (const Json& item : v.items()) {
        out += comma;
        comma = ", ";
        dump_to(item, out);
      }
      out += ']';
      break;
    }
    case Json::Kind::kObject: {
      std::unordered_map<std::string_view, size_t> place;
      std::vector<std::pair<std::string_view, const Json*>> unique;
      for (const auto& [key, value] : v.members()) {
        const auto [it, fresh] = place.try_emplace(key, unique.size());
        if (fresh)
          unique.emplace_back(key, &value);
        else
          unique[it->second].second = &value;
      }
      out += '{';
      const char* comma = "";
      for (const auto& [key, value] : unique) {
        out += comma;
        comma = ", ";
        out += json_quote(key);
        out += ": ";
        dump_to(*value, out);
      }
      out += '}';
      break;
    }
    default:
      out += v.dump();
  }
}

}  // namespace

std::string python_number(std::string_view text) {
  if (text.find_first_of(".eE") == text.npos) return text == "-0" ? "0" : std::string(text);
  // strtod, since from_chars says "out of range" for both a huge and a tiny number.
  return repr(std::strtod(std::string(text).c_str(), nullptr));
}

std::string python_dump(const Json& json) {
  std::string out;
  dump_to(json, out);
  return out;
}

}  // namespace fathom
