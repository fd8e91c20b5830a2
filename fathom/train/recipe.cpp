#include "fathom/train/recipe.h"

#include <fmt/core.h>
#include <toml++/toml.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <set>

#include "fathom/base/file.h"

namespace fathom {
namespace {

[[noreturn]] void refuse(const std::string& what, const std::string& message,
                         const std::string& hint = "") {
  throw Error(Code::kInvalidArgument, fmt::format("{}: {}", what, message), hint);
}

std::string scalar_text(const toml::node& node, const std::string& what, std::string_view key) {
  if (const auto* s = node.as_string()) return s->get();
  if (const auto* b = node.as_boolean()) return b->get() ? "true" : "false";
  if (const auto* i = node.as_integer()) return std::to_string(i->get());
  if (const auto* d = node.as_floating_point()) return fmt::format("{}", d->get());
  refuse(what, fmt::format("{}: expected a string, a number, true or false", key));
}

std::string value_text(const toml::node& node, const std::string& what, std::string_view key) {
  const toml::array* list = node.as_array();
  if (!list) return scalar_text(node, what, key);
  std::string out;
  for (const toml::node& item : *list) {
    if (!out.empty()) out += ',';
    out += scalar_text(item, what, key);
  }
  return out;
}

Json to_json(const toml::node& node, const std::string& what, std::string_view key) {
  if (const toml::table* table = node.as_table()) {
    Json out = Json::object();
    for (const auto& [k, v] : *table) out.set(std::string(k.str()), to_json(v, what, k.str()));
    return out;
  }
  if (const toml::array* list = node.as_array()) {
    Json out = Json::array();
    for (const toml::node& item : *list) out.push(to_json(item, what, key));
    return out;
  }
  if (const auto* s = node.as_string()) return Json::string(s->get());
  if (const auto* b = node.as_boolean()) return Json::boolean(b->get());
  if (const auto* i = node.as_integer()) return Json::number(int64_t{i->get()});
  if (const auto* d = node.as_floating_point()) return Json::number(d->get());
  refuse(what, fmt::format("{}: dates have no meaning here", key));
}

ModelConfig parse_model(const toml::table& root, const std::string& what) {
  const toml::node* model = root.get("model");
  if (!model || !model->is_table())
    refuse(what, "expected a table [model] with the fields of a config.json");
  const ModelConfig config = parse_config(to_json(*model, what, "model"), what + ": model");
  if (!config.unknown_fields.empty())
    refuse(what, fmt::format("model: unknown field \"{}\"", config.unknown_fields[0]),
           "use the published names of config.json");
  return config;
}

const char* kind_name(const toml::node& node) {
  if (node.is_string()) return "a string";
  if (node.is_boolean()) return "true or false";
  if (node.is_integer()) return "an integer";
  if (node.is_floating_point()) return "a number";
  if (node.is_array()) return "a list";
  return node.is_table() ? "a table" : "a date";
}

// OptionSet reads text, so TOML's own kinds are checked first: steps = "10" is a mistake.
void check_kind(const Option& option, const toml::node& node) {
  const char* want = nullptr;
  if (std::holds_alternative<bool*>(option.target)) {
    want = node.is_boolean() ? nullptr : "true or false";
  } else if (std::holds_alternative<int64_t*>(option.target)) {
    want = node.is_integer() ? nullptr : "an integer";
  } else if (std::holds_alternative<double*>(option.target)) {
    want = node.is_number() ? nullptr : "a number";
  } else if (std::holds_alternative<std::string*>(option.target)) {
    want = node.is_string() ? nullptr : "a string";
  } else if (std::holds_alternative<std::vector<std::string>*>(option.target)) {
    if (!node.is_string() && !node.is_array()) want = "a list of strings";
    if (const toml::array* list = node.as_array())
      for (const toml::node& item : *list) {
        const auto* text = item.as_string();
        if (!text || text->get().find(',') != std::string::npos) want = "strings without commas";
      }
  }
  if (want)
    throw Error(Code::kInvalidArgument, fmt::format("option \"{}\": expected {}, found {}",
                                                    option.name, want, kind_name(node)));
}

// What a stage asks for must be there in the model, and within range.
void check_stage(const StageRecipe& s, const ModelConfig& config, const std::string& what) {
  const auto need = [&](bool ok, std::string_view key, const std::string& expected) {
    if (!ok) refuse(what, fmt::format("stage \"{}\": {}: {}", s.stage.name, key, expected));
  };
  const auto one_of = [&](std::string_view key, const std::string& value,
                          std::initializer_list<std::string_view> words, const char* list) {
    need(std::find(words.begin(), words.end(), value) != words.end(), key,
         fmt::format("expected {}, found \"{}\"", list, value));
  };
  const auto& [stage, batch, objective, optimizer, schedule, program] = s;
  need(stage.steps >= 1, "steps", fmt::format("expected at least 1, found {}", stage.steps));
  need(stage.rows_per_pass >= 1, "rows_per_pass",
       fmt::format("expected at least 1, found {}", stage.rows_per_pass));
  one_of("trains", stage.trains, {"all", "main", "indexer", "policy", "policy_indexer"},
         "all, main, indexer, policy or policy_indexer");
  one_of("gradient_products", stage.gradient_products, {"auto", "f32"}, "auto or f32");
  one_of("attention", objective.attention, {"dense", "sparse"}, "dense or sparse");
  one_of("form", objective.form, {"absorbed", "naive"}, "absorbed or naive");
  const bool indexed = config.has_dsa(), moe = config.n_routed_experts > 0;
  need(indexed || objective.attention == "dense", "attention",
       "the model has no indexer (index_topk)");
  need(indexed || stage.trains != "indexer", "trains", "the model has no indexer (index_topk)");
  need(indexed || objective.indexer_kl_weight == 0, "indexer_kl_weight",
       "the model has no indexer (index_topk)");
  need(config.num_nextn_predict_layers > 0 || objective.mtp_weight == 0, "mtp_weight",
       "the model has no prediction layer (num_nextn_predict_layers)");
  need(moe || objective.balance_weight == 0, "balance_weight",
       "the model has no routed experts (n_routed_experts)");
  need((moe && config.has_correction_bias()) || stage.bias_update_speed == 0, "bias_update_speed",
       "the model has no routing bias (topk_method noaux_tc)");
  for (const auto& [key, value] : {std::pair{"learning_rate", schedule.learning_rate},
                                   {"min_learning_rate", schedule.min_learning_rate},
                                   {"eps", optimizer.eps},
                                   {"weight_decay", optimizer.weight_decay},
                                   {"clip_norm", optimizer.clip_norm}})
    need(std::isfinite(value) && value >= 0, key, fmt::format("expected >= 0, found {}", value));
  for (const auto& [key, value] : {std::pair{"beta1", optimizer.beta1},
                                   {"beta2", optimizer.beta2},
                                   {"ema_decay", optimizer.ema_decay}})
    need(value >= 0 && value < 1, key, fmt::format("expected 0 <= {} < 1, found {}", key, value));
  need(schedule.warmup_steps >= 0 && schedule.batch_ramp_steps >= 0, "warmup_steps",
       "expected numbers of steps");
}

std::string text_of(const toml::table& table, std::string_view key) {
  const auto* text = table.get_as<std::string>(key);
  return text ? text->get() : "";
}

// The program of a stage's kind with its defaults; nothing for next_token.
void choose_program(const toml::table& table, const std::string& where,
                    std::span<const StageKind> kinds, StageRecipe* stage) {
  const std::string kind = text_of(table, "kind"), preset = text_of(table, "preset");
  if (kind.empty() || kind == stage->stage.kind) {
    if (!preset.empty()) refuse(where, "preset: only stages of another kind have presets");
    return;
  }
  const auto found = std::ranges::find(kinds, kind, &StageKind::name);
  if (found == kinds.end())
    refuse(where, fmt::format("kind: expected next_token, collect or rl, found \"{}\"", kind));
  stage->program = found->make();
  try {
    stage->program->defaults(preset, stage);
  } catch (const Error& e) {
    refuse(where, e.message(), e.hint());
  }
}

StageRecipe parse_stage(const toml::table& table, const ModelConfig& config,
                        const std::string& what, std::span<const StageKind> kinds) {
  StageRecipe stage;
  choose_program(table, fmt::format("{}:{}", what, table.source().begin.line), kinds, &stage);
  OptionSet set;
  stage.fields(set);
  for (const auto& [key, value] : table) {
    try {
      if (const Option* option = set.find(key.str())) check_kind(*option, value);
      set.set(key.str(), value_text(value, what, key.str()));
    } catch (const Error& e) {
      refuse(fmt::format("{}:{}", what, value.source().begin.line), e.message(), e.hint());
    }
  }
  const std::string where = fmt::format("{}:{}", what, table.source().begin.line);
  const std::string& name = stage.stage.name;  // it names a folder
  if (name.empty()) refuse(where, "expected a name in every [[stage]]");
  for (const char c : name)
    if (!std::isalnum(static_cast<unsigned char>(c)) && c != '_' && c != '-')
      refuse(where, fmt::format("name: expected letters, digits, _ and -, found \"{}\"", name));
  check_stage(stage, config, where);
  if (stage.program) {
    try {
      stage.program->check(config);
    } catch (const Error& e) {
      refuse(where, fmt::format("stage \"{}\": {}", name, e.message()), e.hint());
    }
  }
  return stage;
}

}  // namespace

void StageRecipe::fields(OptionSet& o) {
  stage.fields(o);
  if (program) {
    program->fields(o);
  } else {
    batch.fields(o);
    objective.fields(o);
  }
  optimizer.fields(o);
  schedule.fields(o);
}

std::vector<std::pair<std::string, std::string>> Recipe::values() const {
  std::vector<std::pair<std::string, std::string>> out = {
      {"seed", std::to_string(seed)}, {"init", init}, {"model", fathom::to_json(config).dump()}};
  for (StageRecipe s : stages) {
    OptionSet set;
    s.fields(set);
    for (const auto& [key, value] : set.values()) out.emplace_back(s.stage.name + "." + key, value);
  }
  return out;
}

int64_t Recipe::total_steps() const {
  int64_t n = 0;
  for (const StageRecipe& s : stages) n += s.stage.steps;
  return n;
}

Recipe parse_recipe(const std::string& text, const std::string& what,
                    std::span<const StageKind> kinds) {
  toml::table root;
  try {
    root = toml::parse(text);
  } catch (const toml::parse_error& e) {
    refuse(fmt::format("{}:{}", what, e.source().begin.line), std::string(e.description()));
  }
  Recipe recipe;
  for (const auto& [key, value] : root) {
    const std::vector<std::string> known = {"init", "model", "seed", "stage"};
    if (std::ranges::find(known, key.str()) == known.end()) {
      const std::string near = nearest_name(key.str(), known);
      refuse(fmt::format("{}:{}", what, value.source().begin.line),
             fmt::format("unknown key \"{}\"", key.str()),
             near.empty() ? "a recipe has seed, init, [model] and [[stage]]"
                          : fmt::format("did you mean \"{}\"?", near));
    }
  }
  recipe.config = parse_model(root, what);
  if (const toml::node* seed = root.get("seed")) {
    const auto* value = seed->as_integer();
    if (!value) refuse(what, "seed: expected an integer");
    recipe.seed = value->get();
  }
  recipe.init = text_of(root, "init");
  const toml::node* stages = root.get("stage");
  if (!stages || !stages->is_array_of_tables()) refuse(what, "expected at least one [[stage]]");
  for (const toml::node& node : *stages->as_array())
    recipe.stages.push_back(parse_stage(*node.as_table(), recipe.config, what, kinds));
  std::set<std::string> names;
  for (const StageRecipe& s : recipe.stages)
    if (!names.insert(s.stage.name).second)
      refuse(what, fmt::format("two stages have the name \"{}\"", s.stage.name),
             "the name is that of the stage's model folder");
  return recipe;
}

std::string path_in_run(std::string path, const std::string& run) {
  constexpr std::string_view kRun = "{run}";
  if (const size_t at = path.find(kRun); at != path.npos) path.replace(at, kRun.size(), run);
  return path;
}

Recipe read_recipe(const std::string& path, std::span<const StageKind> kinds) {
  return parse_recipe(read_file(path), path, kinds);
}

}  // namespace fathom
