#include "fathom/train/recipe.h"

#include <doctest/doctest.h>

#include <fmt/format.h>
#include <algorithm>

#include "fathom/base/error.h"

namespace fathom {
namespace {

const std::string kModel = R"(
[model]
architectures = ["DeepseekV32ForCausalLM"]
model_type = "deepseek_v32"
vocab_size = 64
hidden_size = 32
intermediate_size = 48
moe_intermediate_size = 16
num_hidden_layers = 2
first_k_dense_replace = 1
num_attention_heads = 2
q_lora_rank = 16
kv_lora_rank = 16
qk_nope_head_dim = 8
qk_rope_head_dim = 4
v_head_dim = 8
)";
const std::string kExperts =
    "n_routed_experts = 4\nnum_experts_per_tok = 2\nn_shared_experts = 1\nrouted_scaling_factor = "
    "2.5\n";
const std::string kIndexer = "index_topk = 4\nindex_n_heads = 2\nindex_head_dim = 8\n";

std::string stage(const std::string& lines) {
  return kModel + kExperts + kIndexer +
         "num_nextn_predict_layers = 1\n[[stage]]\nname = \"one\"\n" + lines;
}

// What the error says, or "" when the text is a recipe.
std::string refusal(const std::string& text) {
  try {
    parse_recipe(text, "r.toml");
    return "";
  } catch (const InternalError& e) {
    return std::string("internal: ") + e.what();
  } catch (const Error& e) {
    return e.message() + (e.hint().empty() ? "" : "; " + e.hint());
  }
}

bool says(const std::string& text, const std::string& part) {
  const std::string refused = refusal(text);
  const bool ok = refused.find(part) != refused.npos && refused.starts_with("r.toml");
  if (!ok) MESSAGE("expected \"" << part << "\", came \"" << refused << "\"");
  return ok;
}

// The line that holds `part`, from 1.
int64_t line_of(const std::string& text, const std::string& part) {
  const auto end = text.begin() + static_cast<std::ptrdiff_t>(text.find(part));
  return 1 + std::count(text.begin(), end, '\n');
}

TEST_CASE("recipe: published names reach the options of each stage") {
  const Recipe r = parse_recipe(
      "seed = 7\n" + stage("data = [\"a.shard\", \"b\"]\nsteps = 12\nbatch_size = 3\nseq_len = 32\n"
                           "attention = \"sparse\"\nmtp_weight = 0.3\nlearning_rate = 1\n"
                           "weight_decay = 0.25\nwhole_documents = true\ntrains = \"main\"\n"
                           "[[stage]]\nname = \"two\"\nsteps = 5\nbeta1 = 0.5\n"),
      "r.toml");
  CHECK(r.seed == 7);
  CHECK(r.config.hidden_size == 32);
  REQUIRE(r.stages.size() == 2);
  const StageRecipe& s = r.stages[0];
  CHECK(s.stage.data == std::vector<std::string>{"a.shard", "b"});
  CHECK(s.stage.steps == 12);
  CHECK(s.stage.trains == "main");
  CHECK(s.batch.batch_size == 3);
  CHECK(s.batch.seq_len == 32);
  CHECK(s.batch.whole_documents);
  CHECK(s.objective.attention == "sparse");
  CHECK(s.objective.mtp_weight == 0.3);
  CHECK(s.schedule.learning_rate == 1);
  CHECK(s.optimizer.weight_decay == 0.25);
  CHECK(r.stages[1].optimizer.beta1 == 0.5);
  CHECK(r.stages[1].optimizer.beta2 == OptimizerOptions().beta2);
  CHECK(r.total_steps() == 17);
}

TEST_CASE("recipe: values() holds every option of every stage") {
  const Recipe r = parse_recipe(stage("learning_rate = 3e-4\n"), "r.toml");
  bool rate = false, model = false;
  for (const auto& [key, value] : r.values()) {
    rate |= key == "one.learning_rate" && value == "0.0003";
    model |= key == "model" && value.find("kv_lora_rank") != value.npos;
  }
  CHECK(rate);
  CHECK(model);
}

TEST_CASE("recipe: an unknown key is an error with line and suggestion") {
  const std::string text = stage("stepz = 12\n");
  CHECK(says(text, fmt::format("r.toml:{}: unknown option \"stepz\"; did you mean \"steps\"?",
                               line_of(text, "stepz"))));
  CHECK(says("sead = 1\n" + stage(""), "r.toml:1: unknown key \"sead\"; did you mean \"seed\"?"));
  CHECK(says(stage("") + "[stagez]\n", "unknown key \"stagez\"; did you mean \"stage\"?"));
  CHECK(says(kModel + "hidden_sizes = 3\n[[stage]]\nname = \"x\"\n", "hidden_sizes"));
}

TEST_CASE("recipe: a value of the wrong kind is an error with its line") {
  for (const auto& [line, part] :
       {std::pair{"steps = \"12\"", "\"steps\": expected an integer, found a string"},
        {"steps = 1.5", "\"steps\": expected an integer, found a number"},
        {"steps = [1]", "\"steps\": expected an integer, found a list"},
        {"learning_rate = true", "\"learning_rate\": expected a number, found true or false"},
        {"whole_documents = 1", "\"whole_documents\": expected true or false, found an integer"},
        {"attention = 3", "\"attention\": expected a string, found an integer"},
        {"data = 3", "\"data\": expected a list of strings, found an integer"},
        {"data = [\"a,b\"]", "\"data\": expected strings without commas"},
        {"data = [1]", "\"data\": expected strings without commas"},
        {"steps = 2020-01-01", "expected an integer, found a date"},
        {"steps = {a = 1}", "expected an integer, found a table"}}) {
    const std::string text = stage(std::string(line) + "\n");
    CHECK(says(text, fmt::format("r.toml:{}: ", line_of(text, line))));
    CHECK(says(text, part));
  }
  CHECK(says("seed = \"x\"\n" + stage(""), "seed: expected an integer"));
  CHECK(says(kModel + "rms_norm_eps = \"x\"\n[[stage]]\nname = \"x\"\n", "rms_norm_eps"));
}

TEST_CASE("recipe: missing parts and broken TOML are errors") {
  CHECK(says("", "expected a table [model]"));
  CHECK(says("model = 3\n", "expected a table [model]"));
  CHECK(says(kModel, "expected at least one [[stage]]"));
  CHECK(says(kModel + "[stage]\nname = \"x\"\n", "expected at least one [[stage]]"));
  CHECK(says(kModel + "[[stage]]\nsteps = 3\n", "expected a name in every [[stage]]"));
  CHECK(says("[model]\nhidden_size = 3\n[[stage]]\nname = \"x\"\n", "model"));
  CHECK(says(stage("steps = = 3\n"), "r.toml:"));
  CHECK(says(stage("steps = 3\nsteps = 4\n"), "r.toml:"));
}

TEST_CASE("recipe: values out of range name the stage and the key") {
  for (const auto& [line, part] :
       {std::pair{"steps = 0", "steps: expected at least 1, found 0"},
        {"rows_per_pass = 0", "rows_per_pass: expected at least 1"},
        {"gradient_products = \"bf16\"", "gradient_products: expected auto or f32, found \"bf16\""},
        {"trains = \"some\"",
         "trains: expected all, main, indexer, policy or policy_indexer, found \"some\""},
        {"attention = \"spares\"", "attention: expected dense or sparse"},
        {"form = \"fast\"", "form: expected absorbed or naive"},
        {"learning_rate = nan", "learning_rate: expected >= 0"},
        {"learning_rate = -1", "learning_rate: expected >= 0"},
        {"beta2 = 1.0", "beta2: expected 0 <= beta2 < 1"},
        {"ema_decay = 2", "ema_decay: expected"}})
    CHECK(says(stage(std::string(line) + "\n"), std::string("stage \"one\": ") + part));
  CHECK(says(kModel + "[[stage]]\nname = \"../x\"\n", "name: expected letters"));
  CHECK(says(stage("[[stage]]\nname = \"one\"\n"), "two stages have the name \"one\""));
}

TEST_CASE("recipe: a stage cannot train what the model lacks") {
  const std::string plain = kModel + "[[stage]]\nname = \"one\"\n";
  CHECK(refusal(plain) == "");
  for (const char* line :
       {"attention = \"sparse\"", "trains = \"indexer\"", "indexer_kl_weight = 1",
        "mtp_weight = 0.3", "balance_weight = 1e-4", "bias_update_speed = 0.001"}) {
    CHECK(says(plain + line + "\n", "the model has no"));
    CHECK(refusal(stage(std::string(line) + "\n")) == "");
  }
}

}  // namespace
}  // namespace fathom
