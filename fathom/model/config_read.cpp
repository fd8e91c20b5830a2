// config.json to ModelConfig. One reader takes both sets of names: the published ones and the
// inference demo's.
#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <set>
#include <string_view>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/model/config.h"

namespace fathom {
namespace {

using Names = std::initializer_list<const char*>;

// Reads the members of one JSON object, remembers which were asked for, and words the errors.
class FieldReader {
 public:
  FieldReader(const Json& object, const std::string& what, std::string prefix = "")
      : object_(object), what_(what), prefix_(std::move(prefix)) {
    if (!object.is_object()) fail(prefix_.empty() ? "the file" : prefix_, "an object", object);
  }

  // The first of `names` that is present and not null; null pointer when none is.
  const Json* find(Names names) {
    const Json* found = nullptr;
    for (const char* name : names) {
      used_.insert(name);
      const Json* value = object_.find(name);
      if (!found && value && !value->is_null()) {
        found = value;
        last_ = name;
      }
    }
    return found;
  }

  [[noreturn]] void fail(const std::string& field, std::string_view expected,
                         const Json& found) const {
    std::string shown = found.dump();
    if (shown.size() > 80) shown = shown.substr(0, 77) + "...";
    throw Error(Code::kInvalidArgument,
                fmt::format("{}: {}: expected {}, found {}", what_, field, expected, shown),
                "correct the field");
  }
  [[noreturn]] void fail_last(std::string_view expected, const Json& found) const {
    fail(prefix_.empty() ? last_ : prefix_ + "." + last_, expected, found);
  }

  int64_t integer(Names names, std::optional<int64_t> fallback, int64_t low, const char* expected) {
    const Json* value = find(names);
    if (!value) return absent(names, fallback, expected);
    int64_t out = low - 1;
    if (value->is_number()) {
      try {
        out = value->as_int();
      } catch (const Error&) {
        out = low - 1;  // 1.5, 1e300: reported below in the words of this field
      }
    }
    if (out < low) fail_last(expected, *value);
    return out;
  }
  int64_t positive(Names names, std::optional<int64_t> fallback = {}) {
    return integer(names, fallback, 1, "a positive integer");
  }
  int64_t count(Names names, std::optional<int64_t> fallback = {}) {
    return integer(names, fallback, 0, "an integer not below 0");
  }
  double number(Names names, std::optional<double> fallback = {}) {
    const Json* value = find(names);
    if (!value) return absent(names, fallback, "a number");
    double out = NAN;
    if (value->is_number()) {
      try {
        out = value->as_double();
      } catch (const Error&) {
        out = NAN;  // beyond the range of a double
      }
    }
    if (!std::isfinite(out)) fail_last("a finite number", *value);
    return out;
  }
  bool flag(Names names, bool fallback) {
    const Json* value = find(names);
    if (!value) return fallback;
    if (!value->is_bool()) fail_last("true or false", *value);
    return value->as_bool();
  }
  std::string text(Names names, const std::string& fallback) {
    const Json* value = find(names);
    if (!value) return fallback;
    if (!value->is_string()) fail_last("a string", *value);
    return value->as_string();
  }
  // A field that may only have one value here; absent counts as that value.
  void only(const char* name, const Json& allowed) {
    const Json* value = find({name});
    if (!value) return;
    const bool same = value->kind() == allowed.kind() &&
                      (value->is_number() ? value->as_double() == allowed.as_double()
                                          : value->dump() == allowed.dump());
    if (!same) fail_last(allowed.dump() + ", the only value this program computes", *value);
  }
  void ignore(Names names) {
    for (const char* name : names) used_.insert(name);
  }
  void collect_unknown(std::vector<std::string>& out) const {
    for (const auto& [key, value] : object_.members()) {
      const std::string name = prefix_.empty() ? key : prefix_ + "." + key;
      if (!used_.contains(key) && std::find(out.begin(), out.end(), name) == out.end())
        out.push_back(name);
    }
  }

 private:
  template <class T>
  T absent(Names names, const std::optional<T>& fallback, const char* expected) const {
    if (fallback) return *fallback;
    const std::string name = *names.begin();
    throw Error(Code::kInvalidArgument,
                fmt::format("{}: {}: expected {}, found no such field", what_,
                            prefix_.empty() ? name : prefix_ + "." + name, expected),
                "add the field");
  }

  const Json& object_;
  const std::string& what_;
  std::string prefix_, last_;
  std::set<std::string, std::less<>> used_;
};

void read_rope_scaling(const Json& json, const std::string& field, const std::string& what,
                       ModelConfig& c) {
  FieldReader r(json, what, field);
  c.rope_theta = r.number({"rope_theta"}, c.rope_theta);
  const std::string type = r.text({"rope_type", "type"}, "default");
  if (type != "default") {
    if (type != "yarn") r.fail(field + ".type", "\"yarn\" or \"default\"", Json::string(type));
    RopeScaling y;
    y.factor = r.number({"factor"});
    y.original_max_position_embeddings = r.positive({"original_max_position_embeddings"});
    y.beta_fast = r.number({"beta_fast"}, y.beta_fast);
    y.beta_slow = r.number({"beta_slow"}, y.beta_slow);
    y.mscale = r.number({"mscale"}, y.mscale);
    y.mscale_all_dim = r.number({"mscale_all_dim"}, y.mscale_all_dim);
    if (r.find({"attention_factor"})) y.attention_factor = r.number({"attention_factor"});
    c.rope_scaling = y;
  }
  r.collect_unknown(c.unknown_fields);
}

// The demo always runs YaRN, with these defaults; its one mscale is what others call
// mscale_all_dim.
void read_demo_rope(FieldReader& r, ModelConfig& c) {
  RopeScaling y;
  y.factor = r.number({"rope_factor"}, 40);
  y.original_max_position_embeddings = r.positive({"original_seq_len"}, 4096);
  y.beta_fast = r.number({"beta_fast"}, 32);
  y.beta_slow = r.number({"beta_slow"}, 1);
  y.mscale = y.mscale_all_dim = r.number({"mscale"}, 1);
  const double extended =
      std::clamp(y.factor, 1.0, 1e4) * static_cast<double>(y.original_max_position_embeddings);
  c.max_position_embeddings =
      std::max(r.positive({"max_seq_len"}, 1), static_cast<int64_t>(std::min(extended, 1e15)));
  if (y.factor != 1) c.rope_scaling = y;
  r.ignore({"max_batch_size"});
}

void read_rope(FieldReader& r, const std::string& what, bool demo, ModelConfig& c) {
  c.rope_theta = r.number({"rope_theta"}, 10000);
  c.rope_interleave = r.flag({"rope_interleave"}, true);
  if (demo) return read_demo_rope(r, c);
  c.max_position_embeddings = r.positive({"max_position_embeddings"}, c.max_position_embeddings);
  if (const Json* scaling = r.find({"rope_scaling"}))
    read_rope_scaling(*scaling, "rope_scaling", what, c);
  if (const Json* both = r.find({"rope_parameters"}))
    read_rope_scaling(*both, "rope_parameters", what, c);
}

void read_attention(FieldReader& r, ModelConfig& c) {
  c.num_attention_heads = r.positive({"num_attention_heads", "n_heads"});
  c.q_lora_rank = r.count({"q_lora_rank"}, 0);
  c.kv_lora_rank = r.positive({"kv_lora_rank"});
  c.qk_nope_head_dim = r.positive({"qk_nope_head_dim"});
  c.qk_rope_head_dim = r.positive({"qk_rope_head_dim"});
  c.v_head_dim = r.positive({"v_head_dim"});
  r.only("num_key_value_heads", Json::number(c.num_attention_heads));
  r.only("attention_bias", Json::boolean(false));
  if (r.find({"qk_head_dim"})) {
    const int64_t width = r.positive({"qk_head_dim"});
    if (c.qk_head_dim() != width)
      r.fail("qk_head_dim", "qk_nope_head_dim + qk_rope_head_dim", Json::number(width));
  }
}

// "dense" layers first, "sparse" ones after them; any other order has no published field.
void read_layer_types(FieldReader& r, ModelConfig& c) {
  const Json* types = r.find({"mlp_layer_types"});
  if (!types) return;
  const char* expected = "a list of \"dense\" followed by \"sparse\", one for each layer";
  if (!types->is_array() || static_cast<int64_t>(types->items().size()) != c.num_hidden_layers)
    r.fail("mlp_layer_types", expected, *types);
  int64_t dense = 0;
  bool sparse_seen = false;
  for (const Json& type : types->items()) {
    const bool sparse = type.is_string() && type.as_string() == "sparse";
    const bool is_dense = type.is_string() && type.as_string() == "dense";
    if ((!sparse && !is_dense) || (is_dense && sparse_seen))
      r.fail("mlp_layer_types", expected, *types);
    sparse_seen |= sparse;
    dense += is_dense;
  }
  c.first_k_dense_replace = dense;
}

void read_gate(FieldReader& r, bool softmax_family, bool demo, ModelConfig& c) {
  const std::string score =
      r.text({"scoring_func", "score_func"}, softmax_family ? "softmax" : "sigmoid");
  if (score != "sigmoid" && score != "softmax")
    r.fail_last("\"sigmoid\" or \"softmax\"", Json::string(score));
  c.scoring_func = score == "sigmoid" ? ScoringFunc::kSigmoid : ScoringFunc::kSoftmax;
  const bool sigmoid = c.scoring_func == ScoringFunc::kSigmoid;
  c.n_group = r.positive({"n_group", "n_expert_groups"}, 1);
  c.topk_group = r.positive({"topk_group", "n_limited_groups"}, 1);
  const std::string method = r.text({"topk_method"}, sigmoid         ? "noaux_tc"
                                                     : c.n_group > 1 ? "group_limited_greedy"
                                                                     : "greedy");
  if (method == "noaux_tc")
    c.topk_method = TopkMethod::kNoauxTc;
  else if (method == "greedy")
    c.topk_method = TopkMethod::kGreedy;
  else if (method == "group_limited_greedy")
    c.topk_method = TopkMethod::kGroupLimitedGreedy;
  else
    r.fail_last("\"noaux_tc\", \"greedy\" or \"group_limited_greedy\"", Json::string(method));
  c.norm_topk_prob = r.flag({"norm_topk_prob"}, sigmoid);
  c.routed_scaling_factor = r.number({"routed_scaling_factor", "route_scale"},
                                     demo || !sigmoid ? std::optional<double>(1) : std::nullopt);
}

void read_experts(FieldReader& r, bool demo, ModelConfig& c) {
  c.n_routed_experts = r.count({"n_routed_experts", "num_local_experts"}, 0);
  c.first_k_dense_replace = r.count({"first_k_dense_replace", "n_dense_layers"}, 0);
  c.moe_layer_freq = r.positive({"moe_layer_freq"}, 1);
  read_layer_types(r, c);
  if (c.n_routed_experts == 0) {
    r.ignore({"moe_intermediate_size", "moe_inter_dim", "num_experts_per_tok",
              "n_activated_experts", "n_shared_experts", "n_group", "n_expert_groups", "topk_group",
              "n_limited_groups", "scoring_func", "score_func", "topk_method", "norm_topk_prob",
              "routed_scaling_factor", "route_scale"});
    return;
  }
  c.moe_intermediate_size = r.positive({"moe_intermediate_size", "moe_inter_dim"});
  c.num_experts_per_tok = r.positive({"num_experts_per_tok", "n_activated_experts"});
  c.n_shared_experts = r.count({"n_shared_experts"}, 0);
  read_gate(r, demo || c.model_type == "deepseek_v2", demo, c);
}

// Which layers own an indexer: a list, a pattern of F and S, or a period after the first layers
// (GLM-5.2).
void read_indexer_layers(FieldReader& r, ModelConfig& c) {
  const size_t layers = static_cast<size_t>(c.num_hidden_layers);
  std::vector<bool> full(layers, true);
  const int64_t freq = r.positive({"index_topk_freq"}, 1);
  const int64_t offset = r.count({"index_skip_topk_offset"}, 2);
  for (int64_t i = 0; i < c.num_hidden_layers; ++i)
    full[static_cast<size_t>(i)] = i < offset || (i - offset + 1) % freq == 0;
  const Json* pattern = r.find({"index_topk_pattern"});
  if (pattern) {
    if (!pattern->is_string() || pattern->as_string().size() != layers ||
        pattern->as_string().find_first_not_of("FS") != std::string::npos)
      r.fail("index_topk_pattern", fmt::format("{} letters F or S", layers), *pattern);
    for (size_t i = 0; i < layers; ++i) full[i] = pattern->as_string()[i] == 'F';
  }
  const Json* types = r.find({"indexer_types"});
  if (types) {
    const std::string expected = fmt::format("a list of {} times \"full\" or \"shared\"", layers);
    if (!types->is_array() || types->items().size() != layers)
      r.fail("indexer_types", expected, *types);
    for (size_t i = 0; i < layers; ++i) {
      const Json& type = types->items()[i];
      full[i] = type.is_string() && type.as_string() == "full";
      if (!full[i] && !(type.is_string() && type.as_string() == "shared"))
        r.fail("indexer_types", expected, *types);
    }
  }
  if (!full[0])
    r.fail(types     ? "indexer_types"
           : pattern ? "index_topk_pattern"
                     : "index_skip_topk_offset",
           "an indexer of its own in layer 0",
           types     ? *types
           : pattern ? *pattern
                     : Json::number(offset));
  if (std::find(full.begin(), full.end(), false) == full.end()) return;
  full.resize(static_cast<size_t>(c.num_layers()), true);
  c.indexer_full = std::move(full);
}

void read_indexer(FieldReader& r, ModelConfig& c) {
  c.index_topk = r.count({"index_topk"}, 0);
  if (!c.has_dsa()) {
    r.ignore({"index_n_heads", "index_head_dim", "indexer_rope_interleave", "index_topk_freq",
              "index_skip_topk_offset", "index_topk_pattern", "indexer_types"});
    return;
  }
  c.index_n_heads = r.positive({"index_n_heads"});
  c.index_head_dim = r.positive({"index_head_dim"});
  c.indexer_rope_interleave = r.flag({"indexer_rope_interleave"}, false);
  read_indexer_layers(r, c);
}

void read_quantization(FieldReader& r, const std::string& what, bool demo, ModelConfig& c) {
  const std::string demo_format = r.text({"scale_fmt"}, "");
  if (demo) {
    if (c.torch_dtype == "fp8")
      c.quantization_config = QuantizationConfig{.scale_ue8m0 = demo_format == "ue8m0"};
    c.torch_dtype = "bfloat16";  // of what is not quantised
  }
  const Json* json = r.find({"quantization_config"});
  if (!json) return;
  FieldReader q(*json, what, "quantization_config");
  const std::string method = q.text({"quant_method"}, "fp8");
  if (method != "fp8" &&
      method != "fathom") {  // tensors say what they are; a foreign one fails there
    c.unknown_fields.push_back("quantization_config");
    return;
  }
  q.only("fmt", Json::string("e4m3"));
  QuantizationConfig out;
  if (method == "fathom") {
    q.only("group_size", Json::number(kQuantGroupSize));
    const int64_t bits = q.count({"bits"}, 8);
    if (bits != 8 && bits != 4) q.fail_last("4 or 8", Json::number(bits));
    out.quant = bits == 8 ? Quant::kQ8 : Quant::kQ4;
  }
  out.scale_ue8m0 = q.text({"scale_fmt"}, "") == "ue8m0";
  if (const Json* block = q.find({"weight_block_size"})) {
    const auto side = [&](size_t i) {
      const Json& n = block->items()[i];
      const double x = n.is_number() ? n.as_double() : 0;
      if (!(x >= 1 && x <= 65536 && x == std::floor(x)))
        q.fail_last("two positive integers", *block);
      return static_cast<int64_t>(x);
    };
    if (!block->is_array() || block->items().size() != 2)
      q.fail_last("two positive integers", *block);
    out.block_rows = side(0);
    out.block_cols = side(1);
  }
  q.ignore({"activation_scheme", "modules_to_not_convert", "ignored_layers"});
  q.collect_unknown(c.unknown_fields);
  c.quantization_config = out;
}

void read_token_ids(FieldReader& r, ModelConfig& c) {
  c.bos_token_id = r.count({"bos_token_id"}, -1);
  const Json* eos = r.find({"eos_token_id"});
  if (!eos) return;
  const auto add = [&](const Json& id) {
    double x = id.is_number() ? id.as_double() : -1;
    if (!(x >= 0 && x < 9e15 && x == std::floor(x)))
      r.fail("eos_token_id", "a token id or a list of them", *eos);
    c.eos_token_id.push_back(static_cast<int64_t>(x));
  };
  if (!eos->is_array()) return add(*eos);
  for (const Json& id : eos->items()) add(id);
}

void read_identity(FieldReader& r, bool demo, ModelConfig& c) {
  c.model_type = r.text({"model_type"}, demo ? "" : "deepseek_v3");
  c.torch_dtype = r.text({"torch_dtype", "dtype"}, "bfloat16");
  if (const Json* names = r.find({"architectures"})) {
    if (!names->is_array()) r.fail_last("a list of strings", *names);
    for (const Json& name : names->items()) {
      if (!name.is_string()) r.fail_last("a list of strings", *names);
      c.architectures.push_back(name.as_string());
    }
  }
}

}  // namespace

ModelConfig parse_config(const Json& json, const std::string& what) {
  ModelConfig c;
  FieldReader r(json, what);
  const bool demo = json.find("dim") && !json.find("hidden_size");
  read_identity(r, demo, c);
  c.vocab_size = r.positive({"vocab_size"});
  c.hidden_size = r.positive({"hidden_size", "dim"});
  c.num_hidden_layers = r.positive({"num_hidden_layers", "n_layers"});
  c.num_nextn_predict_layers = r.count({"num_nextn_predict_layers"}, 0);
  c.intermediate_size = r.positive({"intermediate_size", "inter_dim"});
  c.rms_norm_eps = r.number({"rms_norm_eps"}, 1e-6);
  c.initializer_range = r.number({"initializer_range"}, 0.02);
  c.tie_word_embeddings = r.flag({"tie_word_embeddings"}, false);
  r.only("hidden_act", Json::string("silu"));
  read_attention(r, c);
  read_rope(r, what, demo, c);
  read_experts(r, demo, c);
  // Sizes decide how long the per-layer lists are, so they are checked before those are built.
  check_config(c, what);
  read_indexer(r, c);
  read_token_ids(r, c);
  read_quantization(r, what, demo, c);
  // Of no meaning for the computation. head_dim is the rotary width in some families and must not
  // be used.
  r.ignore({"attention_dropout", "use_cache", "ep_size", "pretraining_tp", "auto_map",
            "transformers_version", "head_dim", "pad_token_id", "seq_aux", "aux_loss_alpha"});
  r.collect_unknown(c.unknown_fields);
  check_config(c, what);
  return c;
}

ModelConfig read_config(const std::string& path) {
  return parse_config(Json::parse(read_file(path), path), path);
}

}  // namespace fathom
