#include "fathom/model/model_costs.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "fathom/base/error.h"

namespace fathom {
namespace {

int64_t plain_bytes(CacheForm form) { return form == CacheForm::kF32 ? 4 : 2; }

int64_t num_indexers(const ModelConfig& c, int64_t num_layers) {
  int64_t n = 0;
  for (int64_t l = 0; l < num_layers; ++l) n += c.has_indexer(l);
  return n;
}

// For a pair of query and key in one layer.
double pair_flops(const ModelConfig& c, Attending attending) {
  const int64_t widths = attending == Attending::kDenseNaive
                             ? c.qk_head_dim() + c.v_head_dim
                             : 2 * c.kv_lora_rank + c.qk_rope_head_dim;
  return 2 * static_cast<double>(c.num_attention_heads * widths);
}

double index_pair_flops(const ModelConfig& c) {
  return 2 * static_cast<double>(c.index_n_heads * c.index_head_dim);
}

}  // namespace

const char* cache_form_name(CacheForm form) {
  constexpr const char* kNames[] = {"f32", "bf16", "fp8", "int8", "int8-latent"};
  return kNames[static_cast<size_t>(form)];
}

CacheForm parse_cache_form(std::string_view name) {
  for (const CacheForm f : kCacheForms)
    if (name == cache_form_name(f)) return f;
  throw Error(Code::kInvalidArgument,
              fmt::format("expected f32, bf16, fp8, int8 or int8-latent, found \"{}\"", name));
}

int64_t latent_bytes(const ModelConfig& c, CacheForm form) {
  if (form != CacheForm::kFp8 && form != CacheForm::kInt8Latent)
    return plain_bytes(form) * (c.kv_lora_rank + c.qk_rope_head_dim);
  return coded_row_bytes(c.kv_lora_rank, c.qk_rope_head_dim);
}

int64_t index_bytes(const ModelConfig& c, CacheForm form) {
  if (!c.has_dsa()) return 0;
  if (form == CacheForm::kInt8 || form == CacheForm::kInt8Latent)
    return index_code_bytes(c.index_head_dim);
  if (form != CacheForm::kFp8) return plain_bytes(form) * c.index_head_dim;
  return coded_row_bytes(c.index_head_dim, 0);
}

int64_t cache_bytes_per_token(const ModelConfig& c, CacheForm form) {
  return c.num_layers() * latent_bytes(c, form) +
         num_indexers(c, c.num_layers()) * index_bytes(c, form);
}

TokenFlops token_flops(const ModelConfig& c, int64_t num_keys, Attending attending) {
  const bool sparse = attending == Attending::kSparse;
  FM_CHECK(!sparse || c.has_dsa(), "{} has no indexer", c.model_type);
  const ParameterCounts n = count_parameters(c);
  int64_t used = n.active;
  if (!c.tie_word_embeddings) used -= c.vocab_size * c.hidden_size;
  if (!sparse) used -= n.indexer;
  const double keys = static_cast<double>(num_keys);
  const double attended = sparse ? std::min(keys, static_cast<double>(c.index_topk)) : keys;
  TokenFlops f;
  f.weights = 2 * static_cast<double>(used);
  f.attention = pair_flops(c, attending) * attended * static_cast<double>(c.num_hidden_layers);
  if (sparse)
    f.indexer =
        index_pair_flops(c) * keys * static_cast<double>(num_indexers(c, c.num_hidden_layers));
  return f;
}

int64_t sparse_break_even(const ModelConfig& c) {
  if (!c.has_dsa()) return 0;
  const double layers = static_cast<double>(c.num_hidden_layers);
  const double pair = pair_flops(c, Attending::kDenseAbsorbed) * layers;
  const double index =
      index_pair_flops(c) * static_cast<double>(num_indexers(c, c.num_hidden_layers));
  if (index >= pair) return -1;
  // index n + pair k = pair n
  return static_cast<int64_t>(std::ceil(pair * static_cast<double>(c.index_topk) / (pair - index)));
}

double share_per_token(const TensorSpec& spec, const ModelConfig& c) {
  if (spec.layer >= c.num_hidden_layers) return 0;
  if (spec.kind == TensorKind::kEmbedding)
    return c.tie_word_embeddings ? 1 : 1 / static_cast<double>(c.vocab_size);
  if (spec.expert < 0) return 1;
  return static_cast<double>(c.num_experts_per_tok) / static_cast<double>(c.n_routed_experts);
}

double cache_reads(const ModelConfig& c, int64_t num_keys, Attending attending, CacheForm form) {
  const bool sparse = attending == Attending::kSparse;
  const int64_t latents = sparse ? std::min(num_keys, c.index_topk) : num_keys;
  int64_t bytes = c.num_hidden_layers * latents * latent_bytes(c, form);
  if (sparse) bytes += num_indexers(c, c.num_hidden_layers) * num_keys * index_bytes(c, form);
  return static_cast<double>(bytes);
}

}  // namespace fathom
