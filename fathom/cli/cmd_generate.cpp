// fathom generate DIR --prompt TEXT: loads a checkpoint folder and prints what the model writes.
#include <fmt/core.h>
#include <fmt/format.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <string>

#include "fathom/cli/args.h"
#include "fathom/cli/runtime.h"
#include "fathom/infer/session.h"
#include "fathom/model/checkpoint_source.h"
#include "fathom/text/chat_tokens.h"

namespace fathom {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

struct GenerateOptions {
  std::string folder, prompt, thinking = "on";
  SampleParams sample{.max_tokens = 256};
  int64_t seed = 0;
  int64_t context = 0, drafts = 0, threads = 0;
  bool dense = false;

  void fields(OptionSet& o) {
    o.add("prompt", &prompt, "what to answer, or to continue with --thinking raw");
    o.add("thinking", &thinking, "on: think, then answer; off: answer; raw: continue the text");
    o.add("max_tokens", &sample.max_tokens, "length of the answer, thinking included");
    o.add("temperature", &sample.temperature, "0: always the likeliest token");
    o.add("top_p", &sample.top_p, "keep the likeliest tokens with this much probability");
    o.add("top_k", &sample.top_k, "keep this many tokens; 0: all");
    o.add("min_p", &sample.min_p, "keep tokens with this share of the largest probability");
    o.add("seed", &seed, "of the random numbers");
    o.add("stop", &sample.stop, "texts that end the answer, comma separated");
  }
  void engine_fields(OptionSet& o) {
    o.add("context", &context, "tokens to make room for; 0: prompt and answer");
    o.add("drafts", &drafts, "tokens to guess with the multi-token prediction layer");
    o.add("dense", &dense, "attend to all tokens, also where the model has an indexer");
    o.add("threads", &threads, "threads; 0: all cores");
  }
};

// The session that Ctrl-C ends. A signal handler can reach nothing but a global; it stores one
// flag.
std::atomic<Session*> interrupted_session{nullptr};
static_assert(std::atomic<Session*>::is_always_lock_free);

void on_interrupt(int) {
  if (Session* s = interrupted_session.load()) s->interrupt();
  std::signal(SIGINT, SIG_DFL);  // the second one ends the program
}

// Thinking and answer to standard output as they come, a blank line between them.
class Printer final : public TextSink {
 public:
  void put(const TextDelta& d) override {
    if (first_s_ == 0) first_s_ = seconds_since(start_);
    thought_ |= !d.thinking.empty();
    fmt::print("{}", d.thinking);
    if (!d.content.empty() && thought_ && !answered_) fmt::print("\n\n");
    answered_ |= !d.content.empty();
    fmt::print("{}", d.content);
    std::fflush(stdout);
  }
  double first_s() const { return first_s_; }
  double all_s() const { return seconds_since(start_); }

 private:
  Clock::time_point start_ = Clock::now();
  double first_s_ = 0;
  bool thought_ = false, answered_ = false;
};

ThinkingMode thinking_mode(const std::string& word) {
  if (word == "on") return ThinkingMode::kOpen;
  if (word == "off") return ThinkingMode::kClosed;
  if (word == "raw") return ThinkingMode::kRaw;
  throw UsageError(fmt::format("--thinking: expected on, off or raw, found \"{}\"", word));
}

std::vector<int32_t> encode_prompt(const GenerateOptions& o, const Tokenizer& tokenizer,
                                   ThinkingMode mode) {
  if (mode == ThinkingMode::kRaw) {
    std::vector<int32_t> ids;
    if (const std::optional<int32_t> bos = tokenizer.token_id(kBosText)) ids.push_back(*bos);
    tokenizer.encode_to(o.prompt, AddedTokens::kParse, ids);
    return ids;
  }
  return encode_user_turn(tokenizer, o.prompt, mode == ThinkingMode::kOpen, true);
}

void print_rates(size_t num_prompt, const Generation& g, const Printer& timing,
                 const EngineStats& stats) {
  const double all_s = timing.all_s(), rate = static_cast<double>(g.tokens.size()) / all_s;
  std::string line = fmt::format(
      "{} prompt tokens, {} tokens in {:.2f} s, {:.1f} tok/s, first text after {:.0f} ms, {}",
      num_prompt, g.tokens.size(), all_s, rate, timing.first_s() * 1000,
      finish_reason_name(g.finished));
  if (stats.num_drafted > 0)
    line += fmt::format(", {:.0f} % of {} drafts accepted", 100 * stats.acceptance(),
                        stats.num_drafted);
  fmt::print(stderr, "{}\n", line);
}

}  // namespace

int cmd_generate(Args args) {
  GenerateOptions o;
  CommandLine line("generate", "let a model write");
  line.positional("DIR", &o.folder, "checkpoint folder: config.json, safetensors, tokenizer.json");
  o.fields(line.options());
  o.engine_fields(line.options("engine"));
  line.example("fathom generate runs/demo/model --prompt \"What is 17 + 25?\"");
  if (!line.parse(args)) return kExitOk;
  const ThinkingMode mode = thinking_mode(o.thinking);
  o.sample.seed = static_cast<uint64_t>(o.seed);
  try {
    check_params(o.sample);
  } catch (const Error& e) {
    throw UsageError(e.message(), e.hint());
  }

  Runtime runtime(Precision::kF32, o.threads);
  Ctx ctx = runtime.ctx();
  const Tokenizer tokenizer = Tokenizer::load(o.folder);
  const std::vector<int32_t> prompt = encode_prompt(o, tokenizer, mode);
  const Model model = load_model(ctx, o.folder, WeightUse::kServe);
  o.sample.stop_ids = end_tokens(model.config, tokenizer);
  const int64_t room = std::max(o.context, std::ssize(prompt) + o.sample.max_tokens + o.drafts + 1);
  Engine engine(ctx, model,
                {.num_pages = (room + kPageTokens - 1) / kPageTokens,
                 .num_drafts = o.drafts,
                 .selection = o.dense ? KeySelection::kDense : KeySelection::kSparse});
  Session session(engine, tokenizer);
  session.append(prompt);
  interrupted_session = &session;
  std::signal(SIGINT, on_interrupt);

  Printer printer;
  const Generation g = session.generate(o.sample, mode, &printer);
  fmt::print("\n");
  std::fflush(stdout);
  print_rates(prompt.size(), g, printer, engine.stats());
  interrupted_session = nullptr;
  return kExitOk;
}

}  // namespace fathom
