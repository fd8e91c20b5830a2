#include "fathom/rl/collect_stage.h"

#include <fmt/core.h>

#include <vector>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/base/json.h"
#include "fathom/infer/session.h"
#include "fathom/rl/rollout_source.h"
#include "fathom/train/data/packer.h"
#include "fathom/train/trainer.h"

namespace fathom {
namespace {

constexpr const char* kStateFile = "/collected.jsonl";

VerifierOptions verifiers_in(const CollectOptions& options, const std::string& run) {
  VerifierOptions verifiers = options.verifiers;
  verifiers.judge = path_in_run(verifiers.judge, run);
  return verifiers;
}

struct KeptLine {
  std::string problem, line;
};

class CollectSteps final : public StageSteps {
 public:
  CollectSteps(const CollectOptions& options, const StageContext& context)
      : c_(context),
        o_(options),
        tokenizer_(Tokenizer::load(context.run + "/tokenizer.json")),
        tasks_(options.tasks),
        rewards_(options.reward),
        verifiers_(context.ctx, verifiers_in(options, context.run), tasks_.has_programs()),
        runner_(context.ctx, context.model, options.rollout, policy_selection(context.model.config),
                end_tokens(context.model.config, tokenizer_), static_cast<uint64_t>(options.seed)),
        filter_(options.keep) {}

  void step(const TrainState& before, StepReport* r) override {
    int64_t right = 0, answers = 0;
    const size_t had = kept_.size();
    for (std::vector<Rollout>& group : sample(before.stage_step)) {
      const Task task = tasks_.draw(static_cast<uint64_t>(o_.seed),
                                    static_cast<uint64_t>(group[0].group), Split::kTrain);
      const auto verdicts =
          score_rollouts(group, task.group(o_.rollout.max_response_tokens, group[0].sampling.seed),
                         tokenizer_, rewards_, verifiers_.tools());
      for (size_t i = 0; i < group.size(); ++i) {
        r->rows += group[i].num_sampled();
        right += verdicts[i].value_or(false);
        ++answers;
        if (auto line = filter_.offer(tokenizer_, group[i]))
          kept_.push_back({group[i].problem, *std::move(line)});
      }
    }
    r->tokens = r->rows;
    const double share = static_cast<double>(right) / static_cast<double>(answers);
    r->metrics = {{"collect/right", share},
                  {"collect/kept", static_cast<double>(kept_.size() - had)}};
    r->detail = fmt::format("right {:.3f} kept {}", share, kept_.size());
    if (before.stage_step + 1 == c_.stage.stage.steps) write();
  }

  void save(const std::string& folder) const override {
    std::string text;
    for (const KeptLine& k : kept_)
      text += Json::array({Json::string(k.problem), Json::string(k.line)}).dump() + '\n';
    write_file_atomic(folder + kStateFile, text);
  }

  void load(const std::string& checkpoint) override {
    const std::string path = checkpoint + kStateFile;
    for (const Json& pair : Json::parse_lines(read_file(path), path)) {
      kept_.push_back({pair.items().at(0).as_string(), pair.items().at(1).as_string()});
      filter_.remember(kept_.back().problem, kept_.back().line);
    }
  }

 private:
  std::vector<std::vector<Rollout>> sample(int64_t step) {
    for (int64_t i = 0; i < o_.prompts; ++i) {
      const int64_t group = step * o_.prompts + i;
      const Task task =
          tasks_.draw(static_cast<uint64_t>(o_.seed), static_cast<uint64_t>(group), Split::kTrain);
      runner_.add({.step = step,
                   .group = group,
                   .domain = task.domain,
                   .problem = task.problem.prompt,
                   .tokens = task_prompt(tokenizer_, task)});
    }
    return runner_.collect(o_.prompts);
  }

  void write() const {
    if (kept_.empty())
      throw Error(Code::kDataLoss,
                  fmt::format("{}: expected answers with a reward of {}, found none",
                              c_.stage.stage.name, o_.keep.keep_reward),
                  "sample more, or from a better model");
    const std::string output =
        path_in_run(o_.output.empty() ? "{run}/shards/" + c_.stage.stage.name : o_.output, c_.run);
    std::string text;
    for (const KeptLine& k : kept_) text += k.line + '\n';
    make_folders(output);
    write_file_atomic(output + ".jsonl", text);
    PackOptions pack_options;
    pack_options.inputs = {output + ".jsonl"};
    pack_options.output = output;
    pack_options.learn_mode = o_.learn_mode;
    pack_options.overwrite = true;
    pack(pack_options, tokenizer_, c_.ctx.pool);
  }

  StageContext c_;
  CollectOptions o_;
  Tokenizer tokenizer_;
  TaskSource tasks_;
  RewardMix rewards_;
  Verifiers verifiers_;
  RolloutRunner runner_;
  RejectionFilter filter_;
  std::vector<KeptLine> kept_;
};

class CollectProgram final : public StageProgram {
 public:
  void defaults(const std::string& preset, StageRecipe* stage) override {
    if (!preset.empty())
      throw Error(Code::kInvalidArgument,
                  fmt::format("preset: stages of kind collect have none, found \"{}\"", preset));
    stage->stage.trains = "policy";
  }
  void fields(OptionSet& o) override { options_.fields(o); }
  void check(const ModelConfig&) const override {
    check_rollout_options(options_.rollout);
    if (options_.prompts < 1)
      throw Error(Code::kInvalidArgument,
                  fmt::format("prompts: expected at least 1, found {}", options_.prompts));
    if (options_.keep.keep_per_problem < 1)
      throw Error(Code::kInvalidArgument, fmt::format("keep_per_problem: expected at least 1, "
                                                      "found {}",
                                                      options_.keep.keep_per_problem));
    const TaskSource tasks(options_.tasks);
    check_verifier_options(options_.verifiers, RewardMix(options_.reward));
  }
  std::unique_ptr<StageSteps> begin(const StageContext& context, const TrainState&) override {
    return std::make_unique<CollectSteps>(options_, context);
  }

 private:
  CollectOptions options_;
};

}  // namespace

void CollectOptions::fields(OptionSet& o) {
  tasks.fields(o);
  rollout.fields(o);
  reward.fields(o);
  verifiers.fields(o);
  keep.fields(o);
  o.add("seed", &seed, "of tasks and sampling");
  o.add("prompts", &prompts, "problems of a step");
  o.add("output", &output, "folder for the shards; empty: {run}/shards/NAME of the stage");
  o.add("learn_mode", &learn_mode, "the records teach whether to think, too");
}

std::shared_ptr<StageProgram> make_collect_program() { return std::make_shared<CollectProgram>(); }

}  // namespace fathom
