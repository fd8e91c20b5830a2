// Log-probs of given tokens.
#include <algorithm>

#include "fathom/infer/engine.h"
#include "fathom/ops/basic.h"

namespace fathom {
namespace {

constexpr int64_t kChunkRows = 256;  // logits are large: a few rows at a time

}  // namespace

KeySelection usable_selection(const ModelConfig& config, KeySelection wanted) {
  return config.has_dsa() ? wanted : KeySelection::kDense;
}

std::vector<std::vector<float>> score(Ctx& ctx, const Model& model,
                                      const std::vector<std::vector<int32_t>>& sequences,
                                      KeySelection selection) {
  Step step;
  step.selection = usable_selection(model.config, selection);
  std::vector<int32_t> target;
  for (const std::vector<int32_t>& s : sequences) {
    step.add_sequence(s);
    for (size_t i = 0; i < s.size(); ++i) target.push_back(i + 1 < s.size() ? s[i + 1] : -1);
  }
  if (target.empty()) return std::vector<std::vector<float>>(sequences.size());
  const Value hidden_TD = forward(ctx, model, step).hidden_TD;
  std::vector<float> logp;
  for (int64_t begin = 0; begin < step.num_rows(); begin += kChunkRows) {
    const int64_t size = std::min(kChunkRows, step.num_rows() - begin);
    const Value logits_TW = logits(ctx, model, slice(hidden_TD, 0, begin, size));
    const auto part =
        std::span(target).subspan(static_cast<size_t>(begin), static_cast<size_t>(size));
    for (const float x : row_logprob(ctx, logits_TW, part)) logp.push_back(x);
  }
  std::vector<std::vector<float>> out;
  auto at = logp.begin();
  for (const std::vector<int32_t>& s : sequences) {
    const auto n = static_cast<std::ptrdiff_t>(s.size());
    out.emplace_back(at, at + std::max<std::ptrdiff_t>(n - 1, 0));
    at += n;
  }
  return out;
}

}  // namespace fathom
