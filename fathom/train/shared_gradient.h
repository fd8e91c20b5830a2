// The gradient of a batch that is cut into parts, of which every rank of a run computes its share.
// The gradients of the parts are added up in the order of the parts, so the sum has the same bits
// on any number of ranks.
#pragma once

#include <algorithm>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "fathom/base/bytes.h"
#include "fathom/comm/comm.h"
#include "fathom/model/weights.h"

namespace fathom {

// Consecutive parts of at most max_rows rows, at least one item each; rows(item).
template <class T, class F>
std::vector<std::span<const T>> cut_passes(std::span<const T> items, int64_t max_rows, F rows) {
  std::vector<std::span<const T>> out;
  for (size_t first = 0, end = 0; first < items.size(); first = end) {
    int64_t sum = 0;
    while (end < items.size() && (end == first || sum + rows(items[end]) <= max_rows))
      sum += rows(items[end++]);
    out.push_back(items.subspan(first, end - first));
  }
  return out;
}

// Holds two more gradients (of a part, and the sum) once there is more than one part or rank.
class SharedGradient {
 public:
  // params: some may not take gradients (needs_grad); which ones do stays as it is at the first
  // sum(). On several ranks ctx.real is kF32. All must outlive it.
  SharedGradient(const Ctx& ctx, Comm& comm, const std::vector<Param>& params)
      : ctx_(ctx), comm_(comm), params_(params) {}

  // part(i) computes part i: it adds to the gradients of the parameters and returns a Report (with
  // each() for base/bytes.h, and add()). Called for this rank's share of 0 .. num_parts-1, in
  // order. Afterwards the gradients are the sums, and the result is that of the reports in order;
  // both are the same on every rank. The gradients must have been forgotten before.
  template <class Report, class F>
  Report sum(size_t num_parts, F part);

 private:
  struct Slot {
    Node* node;
    int64_t first;  // in the flat tensors
  };
  void layout();
  void attach(const Tensor& flat, bool written);
  void add_part(bool first, int count);

  Ctx ctx_;
  Comm& comm_;
  const std::vector<Param>& params_;
  std::vector<Slot> slots_;
  Tensor part_, sum_;  // [R,1024], the parameters one after the other
};

template <class Report, class F>
Report SharedGradient::sum(size_t num_parts, F part) {
  const auto ranks = static_cast<size_t>(comm_.size()), own = static_cast<size_t>(comm_.rank());
  Report total;
  if (num_parts == 0) return total;
  if (ranks == 1 && num_parts == 1) {
    total.add(part(size_t{0}));
    return total;
  }
  layout();
  ByteWriter reports;
  for (size_t first = 0; first < num_parts; first += ranks) {
    const size_t count = std::min(ranks, num_parts - first);
    attach(part_, false);
    if (own < count) put(reports, part(first + own));
    add_part(first == 0, static_cast<int>(count));
  }
  attach(sum_, true);
  const std::vector<std::string> all = comm_.gather(reports.bytes());
  std::vector<ByteReader> readers;
  for (const std::string& bytes : all) readers.emplace_back(bytes, "another rank", "a report");
  for (size_t i = 0; i < num_parts; ++i) {
    Report one;
    get(readers[i % ranks], one);
    total.add(one);
  }
  return total;
}

}  // namespace fathom
