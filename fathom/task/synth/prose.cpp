#include "fathom/task/synth/prose.h"

#include <fmt/core.h>

#include <array>
#include <string_view>

namespace fathom {
namespace {

using Words = std::array<std::string_view, 8>;
constexpr Words kNames = {"Anna", "Ben", "Clara", "David", "Ella", "Finn", "Mia", "Tom"};
constexpr Words kThings = {"apples", "books", "coins", "eggs", "keys", "pens", "shells", "stones"};
constexpr Words kObjects = {"ball", "box", "cup", "door", "hat", "lamp", "ship", "tree"};
constexpr Words kColours = {"black", "blue", "brown", "green", "grey", "red", "white", "yellow"};
constexpr Words kPlaces = {"garden",  "harbour", "house", "kitchen",
                           "library", "market",  "park",  "school"};
constexpr std::array<std::string_view, 7> kDays = {"Monday", "Tuesday",  "Wednesday", "Thursday",
                                                   "Friday", "Saturday", "Sunday"};

std::string_view pick(Rng& rng, const Words& words) { return words[rng.below(words.size())]; }

// Two different words.
std::pair<std::string_view, std::string_view> pick_two(Rng& rng, const Words& words) {
  const size_t i = rng.below(words.size()), j = rng.below(words.size() - 1);
  return {words[i], words[j < i ? j : j + 1]};
}

char letter(int64_t i) { return static_cast<char>('a' + i); }

}  // namespace

std::string make_sentence(Rng& rng) {
  const auto [name, other_name] = pick_two(rng, kNames);
  const auto [object, other_object] = pick_two(rng, kObjects);
  const auto [colour, other_colour] = pick_two(rng, kColours);
  const std::string_view thing = pick(rng, kThings), place = pick(rng, kPlaces);
  const int64_t a = rng.range(2, 9), b = rng.range(2, 9);
  switch (rng.below(12)) {
    case 0:
      return fmt::format("{} has {} {} and gets {} more. Then {} has {} {}.", name, a, thing, b,
                         name, a + b, thing);
    case 1:
      return fmt::format("{} had {} {} and gave {} to {}. Then {} had {} {}.", name, a + b, thing,
                         b, other_name, name, a, thing);
    case 2:
      return fmt::format("The {} is {} and the {} is {}.", object, colour, other_object,
                         other_colour);
    case 3:
      return fmt::format("{} is in the {}. {} looks for {} in the {}.", name, place, other_name,
                         name, place);
    case 4: {
      const size_t day = rng.below(kDays.size());
      return fmt::format("After {} comes {}.", kDays[day], kDays[(day + 1) % kDays.size()]);
    }
    case 5: {
      const int64_t i = rng.range(0, 24);
      return fmt::format("The letter after {} is {}.", letter(i), letter(i + 1));
    }
    case 6:
      return fmt::format("The number {} is {}.", a * b, a * b % 2 == 0 ? "even" : "odd");
    case 7:
      return fmt::format("{} is {} years old. {} is {} years older, so {} is {}.", name, a,
                         other_name, b, other_name, a + b);
    case 8:
      return a == b ? fmt::format("{} is equal to {}.", a, b)
                    : fmt::format("{} is {} than {}.", a, a < b ? "less" : "greater", b);
    case 9:
      return fmt::format("{} puts the {} {} beside the {}.", name, colour, object, other_object);
    case 10:
      return fmt::format("{} rows of {} {} make {} {}.", a, b, thing, a * b, thing);
    default:
      return fmt::format("{} and {} walk from the {} to the sea.", name, other_name, place);
  }
}

}  // namespace fathom
