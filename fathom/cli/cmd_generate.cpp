// fathom generate DIR --prompt TEXT: loads a checkpoint folder and prints what the model writes.
// With --ids it works on token ids, without a tokenizer, and prints log-probs to the bit.
#include <fmt/core.h>

#include <atomic>
#include <bit>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <string>

#include "fathom/cli/args.h"
#include "fathom/cli/prefix_folder.h"
#include "fathom/cli/runtime.h"
#include "fathom/cli/serve_model.h"
#include "fathom/infer/session.h"
#include "fathom/model/expert_cache.h"
#include "fathom/text/chat_format.h"
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
  bool dense = false, stats = false;
  std::vector<std::string> ids;
  ServeOptions serve;
  PrefixFolderOptions prefixes;

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
    o.add("ids", &ids, "token ids to continue instead of a prompt: prints ids and log-probs");
  }
  void engine_fields(OptionSet& o) {
    o.add("context", &context, "tokens to make room for; 0: prompt and answer");
    o.add("drafts", &drafts,
          "tokens to guess with the multi-token prediction layer, while that is faster");
    o.add("dense", &dense, "attend to all tokens, also where the model has an indexer");
    o.add("threads", &threads, "threads; 0: all cores");
    serve.fields(o);
    prefixes.fields(o);
    o.add("stats", &stats, "print what memory held and what was read");
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

// `mode` becomes that of the text after the prompt.
std::vector<int32_t> encode_prompt(const GenerateOptions& o, const Tokenizer& tokenizer,
                                   ThinkingMode& mode) {
  if (mode == ThinkingMode::kRaw) {
    std::vector<int32_t> ids;
    if (const std::optional<int32_t> bos = tokenizer.token_id(kBosText)) ids.push_back(*bos);
    tokenizer.encode_to(o.prompt, AddedTokens::kParse, ids);
    return ids;
  }
  const ChatFormat format =
      detect_chat_format(read_config(o.folder + "/config.json").model_type, tokenizer);
  require_roles(format, tokenizer);
  const Message user{.role = Role::kUser, .content = o.prompt};
  const ChatOptions options{.format = format,
                            .mode = mode == ThinkingMode::kOpen && format_thinks(format)
                                        ? ThinkMode::kThinking
                                        : ThinkMode::kChat};
  const std::vector<TextSegment> prompt =
      render_chat({}, {&user, 1}, options, load_chat_template(o.folder, format));
  if (!ends_in_thought(join_segments(prompt))) mode = ThinkingMode::kClosed;
  return tokenizer.encode_segments(prompt).ids;
}

void print_rates(size_t num_prompt, const Generation& g, const Printer& timing,
                 const EngineStats& stats) {
  const double all_s = timing.all_s(), rate = static_cast<double>(g.tokens.size()) / all_s;
  std::string line = fmt::format(
      "{} prompt tokens, {} tokens in {:.2f} s, {:.1f} tok/s, first text after {:.0f} ms, {}",
      num_prompt, g.tokens.size(), all_s, rate, timing.first_s() * 1000,
      finish_reason_name(g.finished));
  if (stats.num_reused_tok > 0) line += fmt::format(", keys of {} known", stats.num_reused_tok);
  if (stats.num_drafted > 0)
    line += fmt::format(", {:.0f} % of {} drafts accepted", 100 * stats.acceptance(),
                        stats.num_drafted);
  if (stats.drafting_over) line += ", then no more: slower than without";
  fmt::print(stderr, "{}\n", line);
}

std::vector<int32_t> parse_ids(const std::vector<std::string>& words) {
  std::vector<int32_t> ids;
  for (const std::string& word : words) {
    const char* end = word.data() + word.size();
    int32_t id = 0;
    const auto [rest, error] = std::from_chars(word.data(), end, id);
    if (error != std::errc() || rest != end)
      throw UsageError(fmt::format("--ids: expected numbers, found \"{}\"", word));
    ids.push_back(id);
  }
  return ids;
}

int64_t pages_for(const GenerateOptions& o, size_t num_prompt) {
  const int64_t room =
      std::max(o.context, static_cast<int64_t>(num_prompt) + o.sample.max_tokens + o.drafts + 1);
  return (room + kPageTokens - 1) / kPageTokens;
}

Model load(const GenerateOptions& o, const Ctx& ctx, size_t num_prompt) {
  return load_to_serve(
      ctx, o.folder, o.serve,
      {.num_pages = pages_for(o, num_prompt),
       .num_rows = std::min<int64_t>(512, static_cast<int64_t>(num_prompt) + o.drafts),
       .num_sampled = 1 + o.drafts});
}

EngineOptions engine_options(const GenerateOptions& o, size_t num_prompt) {
  return {.num_pages = pages_for(o, num_prompt),
          .num_drafts = o.drafts,
          .drafts_must_pay = true,
          .selection = o.dense ? KeySelection::kDense : KeySelection::kSparse,
          .cache = parse_cache_option(o.serve.cache),
          .store = o.prefixes.store(o.folder, o.serve.quant)};
}

ExpertStats expert_stats(const Model& model) {
  return model.weights.expert_cache ? model.weights.expert_cache->stats() : ExpertStats();
}

// Tokens as numbers. The first step is the prompt; the rates are those of the others.
int generate_ids(const GenerateOptions& o) {
  const Clock::time_point start = Clock::now();
  const std::vector<int32_t> prompt = parse_ids(o.ids);
  Runtime runtime(Precision::kF32, o.threads);
  Ctx ctx = runtime.ctx();
  const Model model = load(o, ctx, prompt.size());
  const double load_s = seconds_since(start);
  Engine engine(ctx, model, engine_options(o, prompt.size()));
  engine.add({.prompt = prompt, .params = o.sample});
  ExpertStats first;
  double first_s = 0;
  size_t num_tokens = 0;
  while (!engine.idle()) {
    for (const Event& e : engine.step()) {
      if (e.finished == FinishReason::kError) throw Error(Code::kInternal, e.error);
      if (e.token < 0) continue;
      fmt::print("{} {:08x} {:.6f}\n", e.token, std::bit_cast<uint32_t>(e.logp), e.logp);
      std::fflush(stdout);
      if (num_tokens++ > 0) continue;
      first = expert_stats(model);
      first_s = seconds_since(start);
    }
  }
  print_store_warnings(engine);
  if (!o.stats) return kExitOk;
  const double decode_s = seconds_since(start) - first_s;
  fmt::print(stderr, "loaded in {:.2f} s, first token of {} after {:.2f} s, keys of {} known\n",
             load_s, prompt.size(), first_s, engine.stats().num_reused_tok);
  if (model.weights.expert_cache) {
    const ExpertStats all = expert_stats(model);
    fmt::print(stderr, "{}\nprompt: {}\nafter it: {}\n", plan_text(model),
               stream_text(first, prompt.size(), first_s - load_s),
               stream_text(all - first, num_tokens - 1, decode_s));
  } else {
    fmt::print(stderr, "after it: {:.3f} tok/s\n", static_cast<double>(num_tokens - 1) / decode_s);
  }
  fmt::print(stderr, "{}\n", process_text());
  return kExitOk;
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
  ThinkingMode mode = thinking_mode(o.thinking);
  o.sample.seed = static_cast<uint64_t>(o.seed);
  try {
    check_params(o.sample);
  } catch (const Error& e) {
    throw UsageError(e.message(), e.hint());
  }

  if (!o.ids.empty()) return generate_ids(o);

  Runtime runtime(Precision::kF32, o.threads);
  Ctx ctx = runtime.ctx();
  const Tokenizer tokenizer = Tokenizer::load(o.folder);
  const std::vector<int32_t> prompt = encode_prompt(o, tokenizer, mode);
  const Model model = load(o, ctx, prompt.size());
  o.sample.stop_ids = end_tokens(model.config, tokenizer);
  Engine engine(ctx, model, engine_options(o, prompt.size()));
  Session session(engine, tokenizer);
  session.append(prompt);
  interrupted_session = &session;
  std::signal(SIGINT, on_interrupt);

  Printer printer;
  const Generation g = session.generate(o.sample, mode, &printer);
  fmt::print("\n");
  std::fflush(stdout);
  print_rates(prompt.size(), g, printer, engine.stats());
  print_store_warnings(engine);
  if (o.stats) {
    if (model.weights.expert_cache)
      fmt::print(stderr, "{}\n{}\n", plan_text(model),
                 stream_text(expert_stats(model), g.tokens.size(), printer.all_s()));
    fmt::print(stderr, "{}\n", process_text());
  }
  interrupted_session = nullptr;
  return kExitOk;
}

}  // namespace fathom
