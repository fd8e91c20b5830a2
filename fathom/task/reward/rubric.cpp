#include "fathom/task/reward/rubric.h"

#include <algorithm>
#include <iterator>
#include <string_view>

#include <fmt/format.h>

#include "fathom/base/error.h"

namespace fathom {
namespace {

constexpr std::string_view kKinds[] = {"must", "should", "must_not"};
constexpr std::string_view kChecks[] = {"judge", "contains", "max_words", "right"};
constexpr std::string_view kKeys[] = {"id", "text", "weight", "type", "check"};

[[noreturn]] void wrong(size_t item, const std::string& message) {
  throw Error(Code::kInvalidArgument, fmt::format("rubric item {}: {}", item, message),
              "an item has id, text, and may have weight, type and check");
}

template <class E, size_t N>
E parse_name(const std::string_view (&names)[N], const Json& value, size_t item) {
  const auto* found = std::ranges::find(names, value.as_string());
  if (found == std::end(names))
    wrong(item,
          fmt::format("expected one of {}, found '{}'", fmt::join(names, ", "), value.as_string()));
  return static_cast<E>(found - std::begin(names));
}

RubricItem parse_item(const Json& json, size_t i) {
  for (const Json::Member& member : json.members())
    if (std::ranges::find(kKeys, member.first) == std::end(kKeys))
      wrong(i, fmt::format("expected no key '{}'", member.first));
  RubricItem item;
  item.id = json.at("id").as_string();
  item.text = json.at("text").as_string();
  if (item.id.empty() || item.text.empty()) wrong(i, "expected id and text that are not empty");
  if (const Json* w = json.find("weight")) item.weight = w->as_double();
  if (!(item.weight > 0 && item.weight <= 1e6))
    wrong(i, fmt::format("expected a weight above 0, found {}", item.weight));
  if (const Json* k = json.find("type")) item.kind = parse_name<RubricItem::Kind>(kKinds, *k, i);
  if (const Json* c = json.find("check"))
    item.check = parse_name<RubricItem::Check>(kChecks, *c, i);
  const bool digits = item.text.find_first_not_of("0123456789") == std::string::npos;
  if (item.check == RubricItem::Check::kMaxWords && (!digits || item.text.size() > 9))
    wrong(i, fmt::format("expected a number of words as text, found '{}'", item.text));
  return item;
}

}  // namespace

std::vector<RubricItem> rubric_from_json(const Json& array) {
  std::vector<RubricItem> rubric;
  for (const Json& json : array.items()) {
    if (!json.is_object()) wrong(rubric.size(), "expected an object");
    RubricItem item;
    try {
      item = parse_item(json, rubric.size());
    } catch (const Error& e) {
      if (!e.hint().empty()) throw;
      wrong(rubric.size(), e.message());
    }
    if (std::ranges::find(rubric, item.id, &RubricItem::id) != rubric.end())
      wrong(rubric.size(), fmt::format("expected a new id, found '{}' again", item.id));
    rubric.push_back(std::move(item));
  }
  if (rubric.empty()) wrong(0, "expected at least one");
  return rubric;
}

std::vector<RubricItem> judged_items(const std::vector<RubricItem>& rubric) {
  std::vector<RubricItem> items;
  std::ranges::copy_if(rubric, std::back_inserter(items), [](const RubricItem& item) {
    return item.check == RubricItem::Check::kJudge;
  });
  return items;
}

Json rubric_to_json(const std::vector<RubricItem>& rubric) {
  Json array = Json::array();
  for (const RubricItem& item : rubric) {
    array.push(Json::object(
        {{"id", Json::string(item.id)},
         {"text", Json::string(item.text)},
         {"weight", Json::number(item.weight)},
         {"type", Json::string(std::string(kKinds[static_cast<size_t>(item.kind)]))},
         {"check", Json::string(std::string(kChecks[static_cast<size_t>(item.check)]))}}));
  }
  return array;
}

}  // namespace fathom
