#include "fathom/eval/generated_problems.h"

#include <doctest/doctest.h>

#include "fathom/infer/infer_testing.h"
#include "fathom/text/bpe_trainer.h"
#include "fathom/text/chat_tokens.h"

namespace fathom {
namespace {

Tokenizer small_tokenizer() {
  BpeTrainOptions options{.vocab_size = 280};
  options.special_tokens.assign(kChatSpecialTokens.begin(), kChatSpecialTokens.end());
  BpeTrainer trainer(options);
  trainer.add("12+34=46");
  return Tokenizer::from_json(trainer.train(), "test");
}

}  // namespace

TEST_CASE(
    "every problem is answered once, and greedy scores do not depend on how many are asked "
    "together") {
  testing::Machine machine;
  Ctx& ctx = machine.ctx;
  const Tokenizer tokenizer = small_tokenizer();
  ModelConfig config = testing::family_config("v32-nano");
  config.vocab_size = tokenizer.vocab_size();
  const Model model{config, load_weights(ctx, config, *random_source(machine.arena, config, 3),
                                         WeightUse::kServe)};
  std::vector<Problem> problems;
  Rng rng(1, "test");
  for (int i = 0; i < 5; ++i)
    problems.push_back(make_problem(i % 2 ? "addition" : "mod10", rng, 1));
  const auto ask = [&](const std::vector<Problem>& some) {
    Engine engine(ctx, model, {});
    return evaluate_problems(engine, tokenizer, some,
                             {.max_tokens = 12, .index_topk = model.config.index_topk});
  };
  const ProblemScores together = ask(problems);
  CHECK(together.all.num_problems == 5);
  CHECK(together.families.size() == 2);
  CHECK(together.find("mod10")->num_problems == 3);
  CHECK(together.find("gcd") == nullptr);
  CHECK(together.keys_share < 1);
  for (size_t i = 0; i < problems.size(); ++i) {
    const ProblemScores alone = ask({problems[i]});
    CHECK(alone.answers[0].text == together.answers[i].text);
    CHECK(together.answers[i].problem == problems[i]);
    CHECK(together.answers[i].num_tokens <= 12);
  }
}

}  // namespace fathom
