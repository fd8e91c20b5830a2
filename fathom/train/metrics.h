// Named numbers of one training step, gathered over micro-batches and handed to RunLog::log.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace fathom {

using Metric = std::pair<std::string, double>;

// Names are paths with a slash, "loss/lm" or "speed/tokens_s"; the part before the slash groups
// curves in reports.
class MetricSet {
 public:
  void set(std::string_view name, double value);  // the last value counts
  void mean(std::string_view name, double value,
            double weight = 1);  // mean of all calls, by weight
  void sum(std::string_view name, double value);
  void max(std::string_view name, double value);

  // The results in order of first mention; the set is empty afterwards. A mean over no weight is
  // NaN.
  std::vector<Metric> take();
  double value(std::string_view name) const;  // as take() would give it; NaN when absent

 private:
  struct Entry {
    std::string name;
    double value = 0;
    double weight = 1;  // value is divided by it
  };
  Entry& entry(std::string_view name, double first_value, double first_weight);
  std::vector<Entry> entries_;
};

}  // namespace fathom
