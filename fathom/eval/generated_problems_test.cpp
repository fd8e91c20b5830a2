#include "fathom/eval/generated_problems.h"

#include <doctest/doctest.h>

#include "fathom/base/thread_pool.h"
#include "fathom/model/checkpoint_source.h"
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

ModelConfig small_config(int64_t vocab_size) {
  ModelConfig c = read_config("tests/golden/v32-nano/config.json");
  c.vocab_size = vocab_size;
  return c;
}

}  // namespace

TEST_CASE(
    "every problem is answered once, and greedy scores do not depend on how many are asked "
    "together") {
  ThreadPool pool(1);
  Arena arena;
  Ctx ctx{.kernels = cpu_simd(), .pool = pool, .arena = arena};
  const Tokenizer tokenizer = small_tokenizer();
  const Model model = random_model(ctx, small_config(tokenizer.vocab_size()), 3);
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
