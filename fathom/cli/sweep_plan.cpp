#include "fathom/cli/sweep_plan.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <toml++/toml.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <set>
#include <sstream>
#include <utility>

#include "fathom/base/file.h"
#include "fathom/rl/rl_stage.h"
#include "fathom/train/recipe.h"

namespace fathom {
namespace {

// A regime or an arm: its own keys, and options of the stage.
struct Variant {
  std::string name, against;
  toml::table set;
};

struct Study {
  SweepStudy head;
  std::string recipe_path;
  toml::table recipe, set;
  std::vector<Variant> regimes, arms;
};

// Where an error is: "FILE: study NAME".
class Place {
 public:
  explicit Place(std::string what) : what_(std::move(what)) {}
  [[noreturn]] void refuse(const std::string& message, const std::string& hint = "") const {
    throw Error(Code::kInvalidArgument, fmt::format("{}: {}", what_, message), hint);
  }
  Place in(const std::string& part) const { return Place(fmt::format("{}: {}", what_, part)); }

 private:
  std::string what_;
};

void known_keys(const toml::table& table, const std::vector<std::string>& known,
                const Place& place) {
  for (const auto& [key, value] : table)
    if (std::ranges::find(known, key.str()) == known.end())
      place.refuse(fmt::format("unknown key \"{}\"", key.str()),
                   fmt::format("known are {}", fmt::join(known, ", ")));
}

std::string text_of(const toml::table& table, const char* key, const Place& place) {
  const toml::node* node = table.get(key);
  if (!node) return "";
  if (!node->is_string()) place.refuse(fmt::format("{}: expected a string", key));
  return node->as_string()->get();
}

// A name is a part of file names.
std::string name_of(const toml::table& table, const Place& place) {
  std::string name = text_of(table, "name", place);
  const auto good = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '-';
  };
  if (name.empty() || !std::ranges::all_of(name, good))
    place.refuse(fmt::format("name: expected letters, digits, _ and -, found \"{}\"", name));
  return name;
}

int64_t count_of(const toml::table& table, const char* key, int64_t otherwise, const Place& place) {
  const toml::node* node = table.get(key);
  if (!node) return otherwise;
  const auto* n = node->as_integer();
  constexpr int64_t kMost = 1000;
  if (!n || n->get() < 1 || n->get() > kMost)
    place.refuse(fmt::format("{}: expected an integer, 1 to {}", key, kMost));
  return n->get();
}

std::vector<double> rates_of(const toml::table& table, std::vector<double> otherwise,
                             const Place& place) {
  const toml::node* node = table.get("learning_rates");
  if (!node) return otherwise;
  std::vector<double> out;
  if (const toml::array* list = node->as_array())
    for (const toml::node& n : *list) out.push_back(n.value<double>().value_or(-1));
  std::ranges::sort(out);
  const bool good = std::ranges::all_of(out, [](double r) { return r > 0 && std::isfinite(r); });
  if (out.empty() || !good || std::ranges::adjacent_find(out) != out.end())
    place.refuse("learning_rates: expected different numbers above 0");
  return out;
}

std::vector<std::string> words_of(const toml::table& table, const char* key, const Place& place) {
  std::vector<std::string> out;
  const toml::node* node = table.get(key);
  if (!node) return out;
  if (!node->is_array()) place.refuse(fmt::format("{}: expected a list of strings", key));
  for (const toml::node& n : *node->as_array()) {
    if (!n.is_string()) place.refuse(fmt::format("{}: expected a list of strings", key));
    out.push_back(n.as_string()->get());
  }
  return out;
}

toml::table table_of(const toml::table& table, const char* key, const Place& place) {
  const toml::node* node = table.get(key);
  if (!node) return {};
  if (!node->is_table()) place.refuse(fmt::format("{}: expected a table", key));
  return *node->as_table();
}

std::vector<Variant> variants_of(const toml::table& table, const char* key, const Place& place) {
  std::vector<Variant> out;
  const toml::node* node = table.get(key);
  if (!node || !node->is_array_of_tables())
    place.refuse(fmt::format("{}: expected a list of tables with a name each", key));
  for (const toml::node& n : *node->as_array()) {
    Variant v{.set = *n.as_table()};
    v.name = name_of(v.set, place.in(key));
    v.against = text_of(v.set, "against", place.in(v.name));
    v.set.erase("name");
    v.set.erase("against");
    if (std::ranges::find(out, v.name, &Variant::name) != out.end())
      place.refuse(fmt::format("{}: two have the name \"{}\"", key, v.name));
    out.push_back(std::move(v));
  }
  return out;
}

Study study_of(const toml::table& table, const SweepStudy& defaults, const Place& file) {
  Study s{.head = defaults};
  s.head.name = name_of(table, file.in("study"));
  const Place place = file.in("study " + s.head.name);
  known_keys(table,
             {"name", "title", "about", "recipe", "curves", "learning_rates", "seeds", "set",
              "regimes", "arms"},
             place);
  s.head.title = text_of(table, "title", place);
  if (s.head.title.empty()) s.head.title = s.head.name;
  s.head.about = text_of(table, "about", place);
  s.head.curves = words_of(table, "curves", place);
  s.head.rates = rates_of(table, s.head.rates, place);
  s.head.seeds = count_of(table, "seeds", s.head.seeds, place);
  s.set = table_of(table, "set", place);
  s.regimes = variants_of(table, "regimes", place);
  s.arms = variants_of(table, "arms", place);
  for (const Variant& v : s.regimes) s.head.regimes.push_back(v.name);
  for (const Variant& v : s.arms) s.head.arms.push_back({v.name, v.against});
  for (const Variant& v : s.arms)
    if (!v.against.empty() && std::ranges::find(s.arms, v.against, &Variant::name) == s.arms.end())
      place.refuse(fmt::format("against: no arm is called \"{}\"", v.against));
  return s;
}

class Planner {
 public:
  explicit Planner(const std::string& path) : place_(path) {
    const toml::table root = parse(path);
    known_keys(root, {"recipe", "learning_rates", "seeds", "set", "study"}, place_);
    set_ = table_of(root, "set", place_);
    const SweepStudy defaults{.rates = rates_of(root, {}, place_),
                              .seeds = count_of(root, "seeds", 1, place_)};
    const toml::node* studies = root.get("study");
    if (!studies || !studies->is_array_of_tables())
      place_.refuse("expected at least one [[study]]");
    for (const toml::node& node : *studies->as_array()) {
      studies_.push_back(study_of(*node.as_table(), defaults, place_));
      read_recipe_of(*node.as_table(), root, &studies_.back());
    }
  }

  Sweep plan(const std::vector<std::string>& only) {
    choose(only);
    Sweep sweep;
    int64_t seeds = 0;
    for (const Study& s : studies_) {
      sweep.studies.push_back(s.head);
      seeds = std::max(seeds, s.head.seeds);
    }
    for (int64_t seed = 1; seed <= seeds; ++seed)
      for (size_t i = 0; i < studies_.size(); ++i)
        if (seed <= studies_[i].head.seeds) add_cells(i, seed, &sweep.cells);
    return sweep;
  }

 private:
  toml::table parse(const std::string& path) const {
    try {
      return toml::parse(read_file(path), path);
    } catch (const toml::parse_error& e) {
      Place(fmt::format("{}:{}", path, e.source().begin.line)).refuse(std::string(e.description()));
    }
  }

  // The study's own recipe, or the sweep's.
  void read_recipe_of(const toml::table& study, const toml::table& root, Study* s) const {
    const Place place = place_.in("study " + s->head.name);
    s->recipe_path = text_of(study.contains("recipe") ? study : root, "recipe", place);
    if (s->recipe_path.empty()) place.refuse("expected recipe, the file that all runs follow");
    s->recipe = parse(s->recipe_path);
    const toml::node* stages = s->recipe.get("stage");
    if (!stages || !stages->is_array_of_tables())
      place.refuse(fmt::format("{}: expected at least one [[stage]]", s->recipe_path));
  }

  void choose(const std::vector<std::string>& only) {
    std::set<std::string> names;
    for (const Study& s : studies_)
      if (!names.insert(s.head.name).second)
        place_.refuse(fmt::format("two studies have the name \"{}\"", s.head.name));
    for (const std::string& name : only)
      if (!names.contains(name))
        place_.refuse(fmt::format("no study is called \"{}\"", name),
                      fmt::format("it has {}", fmt::join(names, ", ")));
    if (!only.empty())
      std::erase_if(studies_, [&](const Study& s) {
        return std::ranges::find(only, s.head.name) == only.end();
      });
    for (const Study& s : studies_)
      if (s.head.rates.empty())
        place_.refuse(fmt::format("study {}: expected learning_rates", s.head.name));
  }

  void add_cells(size_t index, int64_t seed, std::vector<SweepCell>* cells) const {
    const Study& s = studies_[index];
    for (const Variant& regime : s.regimes)
      for (const double rate : s.head.rates)
        for (const Variant& arm : s.arms) {
          SweepCell cell{
              .study = index, .regime = regime.name, .arm = arm.name, .rate = rate, .seed = seed};
          cell.key = fmt::format("{}.{}.{}.{}.{}", s.head.name, regime.name, arm.name, rate, seed);
          write_recipe(s, {&set_, &s.set, &regime.set, &arm.set}, &cell);
          cells->push_back(std::move(cell));
        }
  }

  // Later tables win; learning rate and seed win over all.
  void write_recipe(const Study& s, std::initializer_list<const toml::table*> sets,
                    SweepCell* cell) const {
    toml::table root = s.recipe;
    toml::array& stages = *root.get("stage")->as_array();
    toml::table& stage = *stages[stages.size() - 1].as_table();
    for (const toml::table* set : sets)
      for (const auto& [key, value] : *set) stage.insert_or_assign(key, value);
    stage.insert_or_assign("learning_rate", cell->rate);
    stage.insert_or_assign("min_learning_rate", cell->rate);
    stage.insert_or_assign("seed", cell->seed);
    std::ostringstream text;
    text << toml::toml_formatter(root) << "\n";
    cell->recipe = text.str();
    try {
      cell->steps = parse_recipe(cell->recipe, s.recipe_path, rl_stage_kinds()).total_steps();
    } catch (const Error& e) {
      place_.in(cell->key).refuse(e.message(), e.hint());
    }
  }

  Place place_;
  toml::table set_;
  std::vector<Study> studies_;
};

}  // namespace

const SweepArm& SweepStudy::arm(const std::string& wanted) const {
  const auto found = std::ranges::find(arms, wanted, &SweepArm::name);
  FM_CHECK(found != arms.end(), "no arm {}", wanted);
  return *found;
}

Sweep read_sweep(const std::string& path, const std::vector<std::string>& only) {
  return Planner(path).plan(only);
}

}  // namespace fathom
