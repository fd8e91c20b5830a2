// Argument values that a model wrote nearly as JSON, brought into the type that the tool's schema
// asks for.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "fathom/base/json.h"

namespace fathom {

// JSON with the slips that models make: single quotes, bare keys, trailing commas, True/False/None,
// a missing end. Nothing when it is something else, or nested deeper than 64.
std::optional<Json> parse_lenient_json(std::string_view text);

// `raw` as JSON text. Valid JSON of a fitting type stays as it is. `schema` is the property's JSON
// schema, or null. What cannot be read becomes a string, or stays valid JSON of another type; the
// result always parses.
std::string repair_argument(std::string_view raw, const Json* schema);

// Whether the schema allows nothing but text (type string, or an enum of strings), or does not
// allow text.
enum class TextFit : uint8_t { kOnlyText, kMayBeText, kNoText };
TextFit text_fit(const Json* schema);

// The schema of one property of a function object ({"name", "parameters": {"properties"}}), or
// null.
const Json* property_schema(const Json* function, std::string_view property);

}  // namespace fathom
