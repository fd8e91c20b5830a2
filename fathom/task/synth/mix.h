// Which families a corpus draws from, at which difficulties and how often; written as text in
// options.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "fathom/task/synth/problem.h"

namespace fathom {

// "NAME", "NAME:3", "NAME:2-5", each with "*WEIGHT" behind it when wanted: "mod10:2-5*2.5".
class ProblemMix {
 public:
  // An empty list means all families at all their difficulties, equally often. Throws Error for
  // unknown families, difficulties out of range and weights that are not positive.
  explicit ProblemMix(const std::vector<std::string>& specs);

  // One problem of `split`: family by weight, difficulty uniform in its range.
  Problem draw(Rng& rng, Split split) const;

  struct Part {
    const FamilyEntry* family;
    int low, high;
    double weight;
  };
  const std::vector<Part>& parts() const { return parts_; }

 private:
  std::vector<Part> parts_;
  double total_weight_ = 0;
};

}  // namespace fathom
