#include "fathom/train/recipe.h"

#include <fmt/format.h>
#include <toml++/toml.h>

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

StageRecipe parse_stage(const toml::table& table, const std::string& what) {
  StageRecipe stage;
  OptionSet set;
  stage.fields(set);
  for (const auto& [key, value] : table) {
    try {
      set.set(key.str(), value_text(value, what, key.str()));
    } catch (const Error& e) {
      refuse(fmt::format("{}:{}", what, value.source().begin.line), e.message(), e.hint());
    }
  }
  if (stage.stage.name.empty()) refuse(what, "expected a name in every [[stage]]");
  if (stage.stage.steps < 1)
    refuse(what,
           fmt::format("{}: expected steps >= 1, found {}", stage.stage.name, stage.stage.steps));
  const std::string& trains = stage.stage.trains;
  if (trains != "all" && trains != "main" && trains != "indexer")
    refuse(what, fmt::format("{}: trains: expected all, main or indexer, found \"{}\"",
                             stage.stage.name, trains));
  return stage;
}

}  // namespace

void StageRecipe::fields(OptionSet& o) {
  stage.fields(o);
  batch.fields(o);
  objective.fields(o);
  optimizer.fields(o);
  schedule.fields(o);
}

std::vector<std::pair<std::string, std::string>> Recipe::values() const {
  std::vector<std::pair<std::string, std::string>> out = {
      {"seed", std::to_string(seed)}, {"model", fathom::to_json(config).dump()}};
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

Recipe parse_recipe(const std::string& text, const std::string& what) {
  toml::table root;
  try {
    root = toml::parse(text);
  } catch (const toml::parse_error& e) {
    refuse(fmt::format("{}:{}", what, e.source().begin.line), std::string(e.description()));
  }
  Recipe recipe;
  for (const auto& [key, value] : root) {
    if (key.str() != "model" && key.str() != "seed" && key.str() != "stage") {
      const std::string near = nearest_name(key.str(), {"model", "seed", "stage"});
      refuse(what, fmt::format("unknown key \"{}\"", key.str()),
             near.empty() ? "a recipe has seed, [model] and [[stage]]"
                          : fmt::format("did you mean \"{}\"?", near));
    }
  }
  recipe.config = parse_model(root, what);
  if (const toml::node* seed = root.get("seed")) {
    const auto* value = seed->as_integer();
    if (!value) refuse(what, "seed: expected an integer");
    recipe.seed = value->get();
  }
  const toml::node* stages = root.get("stage");
  if (!stages || !stages->is_array_of_tables()) refuse(what, "expected at least one [[stage]]");
  for (const toml::node& node : *stages->as_array())
    recipe.stages.push_back(parse_stage(*node.as_table(), what));
  return recipe;
}

Recipe read_recipe(const std::string& path) { return parse_recipe(read_file(path), path); }

}  // namespace fathom
