#include "fathom/train/metrics.h"

#include <cmath>
#include <limits>

namespace fathom {

MetricSet::Entry& MetricSet::entry(std::string_view name, double first_value, double first_weight) {
  for (Entry& e : entries_)
    if (e.name == name) return e;
  return entries_.emplace_back(Entry{std::string(name), first_value, first_weight});
}

void MetricSet::set(std::string_view name, double value) {
  Entry& e = entry(name, 0, 1);
  e.value = value;
  e.weight = 1;
}

void MetricSet::mean(std::string_view name, double value, double weight) {
  Entry& e = entry(name, 0, 0);
  e.value += value * weight;
  e.weight += weight;
}

void MetricSet::sum(std::string_view name, double value) { entry(name, 0, 1).value += value; }

void MetricSet::max(std::string_view name, double value) {
  Entry& e = entry(name, value, 1);
  if (value > e.value || std::isnan(value)) e.value = value;
}

std::vector<Metric> MetricSet::take() {
  std::vector<Metric> out;
  for (Entry& e : entries_) out.emplace_back(std::move(e.name), e.value / e.weight);
  entries_.clear();
  return out;
}

double MetricSet::value(std::string_view name) const {
  for (const Entry& e : entries_)
    if (e.name == name) return e.value / e.weight;
  return std::numeric_limits<double>::quiet_NaN();
}

}  // namespace fathom
