#include "fathom/task/synth/mix.h"

#include <fmt/core.h>

#include <charconv>
#include <cmath>

#include "fathom/base/error.h"

namespace fathom {
namespace {

[[noreturn]] void bad_spec(const std::string& spec, const std::string& why) {
  throw Error(Code::kInvalidArgument, fmt::format("families: '{}': {}", spec, why),
              "write NAME, NAME:3 or NAME:2-5, with *WEIGHT behind it when wanted");
}

template <class T>
T parse_number(std::string_view text, const std::string& spec, const char* what) {
  T value{};
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || stop != text.data() + text.size()) {
    bad_spec(spec, fmt::format("{} is a number, not '{}'", what, text));
  }
  return value;
}

ProblemMix::Part parse_part(const std::string& spec) {
  std::string_view rest = spec;
  double weight = 1;
  if (const size_t star = rest.find('*'); star != std::string_view::npos) {
    weight = parse_number<double>(rest.substr(star + 1), spec, "the weight");
    if (!(weight > 0) || !std::isfinite(weight)) bad_spec(spec, "the weight must be positive");
    rest = rest.substr(0, star);
  }
  const size_t colon = rest.find(':');
  const FamilyEntry& family = find_family(rest.substr(0, colon));
  ProblemMix::Part part{&family, 1, family.max_difficulty, weight};
  if (colon != std::string_view::npos) {
    const std::string_view range = rest.substr(colon + 1);
    const size_t dash = range.find('-');
    part.low = parse_number<int>(range.substr(0, dash), spec, "the difficulty");
    part.high = dash == std::string_view::npos
                    ? part.low
                    : parse_number<int>(range.substr(dash + 1), spec, "the difficulty");
  }
  if (part.low < 1 || part.low > part.high || part.high > family.max_difficulty) {
    bad_spec(spec, fmt::format("{} has difficulties 1 to {}", family.name, family.max_difficulty));
  }
  return part;
}

}  // namespace

ProblemMix::ProblemMix(const std::vector<std::string>& specs) {
  for (const std::string& spec : specs) parts_.push_back(parse_part(spec));
  if (specs.empty()) {
    for (const FamilyEntry& family : families()) {
      parts_.push_back({&family, 1, family.max_difficulty, 1.0});
    }
  }
  for (const Part& part : parts_) total_weight_ += part.weight;
}

Problem ProblemMix::draw(Rng& rng, Split split) const {
  double at = rng.uniform() * total_weight_;
  size_t i = 0;
  while (i + 1 < parts_.size() && at >= parts_[i].weight) at -= parts_[i++].weight;
  const Part& part = parts_[i];
  return make_problem(part.family->name, rng, static_cast<int>(rng.range(part.low, part.high)),
                      split);
}

}  // namespace fathom
