// What a model takes in memory: packed weights and activations; its key cache is in model_costs.h.
#pragma once

#include "fathom/model/expert_cache.h"
#include "fathom/model/weights.h"

namespace fathom {

// experts[l][e] of the layers that route, as collect_experts gives them. num_slots is what
// options.memory_bytes leaves room for; throws Error when that is less than one.
MemoryPlan plan_memory(const Kernels& kernels, const ModelConfig& config, WeightSource& source,
                       const std::vector<std::vector<StoredExpert>>& experts,
                       const LoadOptions& options);

// Routed experts by layer, dense layers left out, multi-token prediction layers last.
std::vector<std::vector<StoredExpert>> collect_experts(const ModelConfig& config,
                                                       WeightSource& source);

// Of a forward pass with so many rows, of which num_sampled reach the head: an upper estimate.
int64_t activation_bytes(const ModelConfig& config, int64_t num_rows, int64_t num_sampled);

// Memory that packed bytes really occupy: large blocks begin on a huge page of their own.
int64_t block_bytes(int64_t size_bytes);

// The type in which the heads of kv_b_proj are kept: products of e4m3 and powers of two are bf16
// numbers, others need f32.
DType head_type(const StoredWeight& kv_b_proj);

std::string bytes_text(int64_t size_bytes);  // "5.9 GB"
// "6G", "512M", "1.5GiB" as bytes; throws Error.
int64_t parse_bytes(const std::string& text);

}  // namespace fathom
