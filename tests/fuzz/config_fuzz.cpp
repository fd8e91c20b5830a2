// Any JSON is a config or an Error; what is a config is written back to an equal one, and nothing
// derived from it is infinite or out of bounds.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "fathom/base/error.h"
#include "fathom/model/rope_frequencies.h"
#include "fathom/model/tensor_names.h"

namespace {

void check_derived(const fathom::ModelConfig& c) {
  FM_CHECK(std::isfinite(c.softmax_scale()), "softmax scale {}", c.softmax_scale());
  FM_CHECK(std::isfinite(c.rope_amplitude()), "amplitude {}", c.rope_amplitude());
  for (const double f : fathom::rope_frequencies(c))
    FM_CHECK(std::isfinite(f), "a frequency is {}", f);
  for (int64_t l = 0; c.has_dsa() && l < c.num_layers(); ++l)
    FM_CHECK(c.has_indexer(c.indexer_source(l)), "layer {} has no indexer before it", l);
  if (c.num_layers() * (c.n_routed_experts + 1) > 2000) return;  // the list itself is what is slow
  for (const fathom::TensorSpec& spec : fathom::tensor_specs(c))
    FM_CHECK(spec.numel() > 0, "{} has {} elements", spec.name, spec.numel());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  fathom::ModelConfig config;
  try {
    config = fathom::parse_config(fathom::Json::parse(text, "input"), "input");
  } catch (const fathom::InternalError&) {
    throw;
  } catch (const fathom::Error&) {
    return 0;
  }
  check_derived(config);
  fathom::ModelConfig again = fathom::parse_config(fathom::to_json(config), "written");
  again.unknown_fields = config.unknown_fields;
  FM_CHECK(again == config, "written as {}", fathom::to_json(config).dump());
  return 0;
}
