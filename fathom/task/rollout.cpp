#include "fathom/task/rollout.h"

#include <fmt/core.h>

#include <numeric>

#include "fathom/base/error.h"

namespace fathom {
namespace {

void expect_size(const char* field, size_t got, int64_t want) {
  if (static_cast<int64_t>(got) == want) return;
  throw Error{Code::kDataLoss,
              fmt::format("rollout: expected {} entries in {}, found {}", want, field, got),
              "the record is damaged; sample the answer again"};
}

}  // namespace

const char* stop_reason_name(StopReason r) {
  switch (r) {
    case StopReason::kEnd:
      return "end";
    case StopReason::kLength:
      return "length";
    case StopReason::kCancelled:
      return "cancelled";
    case StopReason::kError:
      return "error";
    case StopReason::kUnscored:
      return "unscored";
  }
  return "";
}

int64_t Rollout::num_sampled() const {
  return std::accumulate(sampled.begin(), sampled.end(), int64_t{0});
}

void check_rollout(const Rollout& r) {
  const int64_t rows = r.response_len();
  if (r.prompt_len < 1 || rows < 0)
    throw Error{Code::kDataLoss,
                fmt::format("rollout: expected a prompt of 1 to {} tokens, found {}",
                            r.tokens.size(), r.prompt_len),
                "the record is damaged; sample the answer again"};
  expect_size("behaviour_logp", r.behaviour_logp.size(), rows);
  expect_size("sampled", r.sampled.size(), rows);
  expect_size("weight_version", r.weight_version.size(), rows);
  expect_size("support.offset", r.support.offset.size(), rows + 1);
  expect_size("support.id", r.support.id.size(), r.support.offset.back());
  expect_size("experts.expert", r.experts.expert.size(),
              static_cast<int64_t>(r.experts.layers.size()) * r.experts.num_experts_per_tok *
                  (r.prompt_len + rows - 1));
  expect_size("selection.fingerprint", r.selection.fingerprint.size(),
              static_cast<int64_t>(r.selection.layers.size()) * (r.prompt_len + rows - 1));
}

}  // namespace fathom
