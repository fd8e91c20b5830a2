// What a model costs, from its config alone: memory of the key cache, arithmetic and reads of one
// token. Exact counts of multiply-adds and bytes, nothing measured.
#pragma once

#include <cstdint>

#include "fathom/model/config.h"
#include "fathom/model/tensor_names.h"

namespace fathom {

// kFp8: the published layout, e4m3 latents with an f32 scale for each 128 and a bf16 rotary key;
// the indexer's keys e4m3 with an f32 scale for each 128. For V3.2 that is 656 and 132 bytes.
// kInt8: latents as kBF16, the indexer's keys in integer codes (IndexCode of kernels.h): 1,152 and
// 132 bytes. kInt8Latent: latents in integer codes too (LatentCode), 656 and 132 bytes.
enum class CacheForm : uint8_t { kF32, kBF16, kFp8, kInt8, kInt8Latent };
inline constexpr CacheForm kCacheForms[] = {CacheForm::kF32, CacheForm::kBF16, CacheForm::kFp8,
                                            CacheForm::kInt8, CacheForm::kInt8Latent};
// "f32", "bf16", "fp8", "int8", "int8-latent"
const char* cache_form_name(CacheForm form);
CacheForm parse_cache_form(std::string_view name);  // throws Error

// Bytes of one token in one layer.
int64_t latent_bytes(const ModelConfig& config, CacheForm form);
int64_t index_bytes(const ModelConfig& config, CacheForm form);  // 0 without an indexer
// In all layers, multi-token prediction layers included.
int64_t cache_bytes_per_token(const ModelConfig& config, CacheForm form);

// How a token attends. Naive: keys and values expanded per head; absorbed: over the latent itself.
enum class Attending : uint8_t { kDenseNaive, kDenseAbsorbed, kSparse };

// Floating-point operations (a multiply-add is two) of one token of the main model that sees
// `num_keys` keys, itself among them.
struct TokenFlops {
  double weights = 0;    // products with weights, the head among them; the embedding is a look-up
  double indexer = 0;    // scores of all keys
  double attention = 0;  // scores and sums over the keys attended to
  double total() const { return weights + indexer + attention; }
};
TokenFlops token_flops(const ModelConfig& config, int64_t num_keys, Attending attending);

// The number of keys from which on sparse attention takes fewer operations than dense absorbed
// attention; 0 without an indexer, -1 when it never does.
int64_t sparse_break_even(const ModelConfig& config);

// The share of a tensor that one token of the main model reads: of the embedding one row, of the
// routed experts those it is sent to, of multi-token prediction layers nothing.
double share_per_token(const TensorSpec& spec, const ModelConfig& config);

// Bytes of keys that one token reads: all latents, or with sparse attention the selected ones and
// all keys of the indexer.
double cache_reads(const ModelConfig& config, int64_t num_keys, Attending attending,
                   CacheForm form);

}  // namespace fathom
