#include "fathom/infer/engine.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "fathom/base/options.h"
#include "fathom/base/thread_pool.h"
#include "fathom/ops/basic.h"

namespace fathom {
namespace {

int64_t context_limit(const ModelConfig& config, const EngineOptions& o) {
  int64_t limit = std::min(config.max_position_embeddings, o.num_pages * kPageTokens);
  return o.max_context > 0 ? std::min(limit, o.max_context) : limit;
}

EngineOptions checked(const ModelConfig& config, const EngineOptions& o) {
  const auto at_least_1 = [](const char* name, int64_t value) {
    if (value < 1)
      throw Error(Code::kInvalidArgument,
                  fmt::format("{}: expected at least 1, found {}", name, value));
  };
  at_least_1("num_pages", o.num_pages);
  at_least_1("max_step_tokens", o.max_step_tokens);
  at_least_1("max_sequences", o.max_sequences);
  if (o.num_drafts > 0 && config.num_nextn_predict_layers == 0)
    throw Error(
        Code::kInvalidArgument,
        fmt::format("num_drafts: expected 0, found {}: {} has no multi-token prediction layer",
                    o.num_drafts, config.model_type),
        "decode without speculation");
  return o;
}

// Keys depend on all of this, and on the weights and the program, which the given owner stands for.
std::unique_ptr<PrefixStore> open_store(const EngineOptions& o, KeySelection selection) {
  if (!o.store) return nullptr;
  PrefixStoreOptions store = *o.store;
  store.owner +=
      fmt::format("\ncache {}, {} attention{}{}", cache_form_name(o.cache),
                  selection == KeySelection::kSparse ? "sparse" : "dense",
                  o.num_drafts > 0 ? ", drafts" : "", o.record_routing ? ", routing" : "");
  return std::make_unique<PrefixStore>(std::move(store));
}

// Without drafts nothing is in the layers of multi-token prediction.
int64_t layers_in_use(const ModelConfig& config, const EngineOptions& o) {
  return o.num_drafts > 0 ? config.num_layers() : config.num_hidden_layers;
}

bool contains(const std::vector<int32_t>& ids, int32_t id) {
  return std::ranges::find(ids, id) != ids.end();
}

}  // namespace

void EngineOptions::fields(OptionSet& o) {
  o.add("num_pages", &num_pages, "key cache in pages of 64 tokens");
  o.add("max_step_tokens", &max_step_tokens, "rows of one forward pass; longer prompts are cut");
  o.add("max_sequences", &max_sequences, "sequences that run at the same time");
  o.add("max_context", &max_context, "tokens of a sequence; 0: what model and pages allow");
  o.add("num_drafts", &num_drafts, "tokens guessed by the multi-token prediction layer");
  o.add("prefix_cache", &prefix_cache, "reuse the keys of equal beginnings");
}

// What one sequence got in a step.
struct Engine::Sampled {
  Sequence* sequence = nullptr;
  int64_t num_drafts = 0;
  int64_t first_row = 0;  // of its rows in the step's logits
  std::vector<Event> events;
};

Engine::Engine(Ctx& ctx, const Model& model, const EngineOptions& options)
    : ctx_(ctx),
      model_(model),
      options_(checked(model.config, options)),
      max_context_(context_limit(model.config, options)),
      selection_(usable_selection(model.config, options.selection)),
      pages_(ctx.arena, model.config, options.num_pages, options.record_routing, options.cache),
      prefixes_(pages_, open_store(options, selection_), layers_in_use(model.config, options)),
      scheduler_(pages_, prefixes_,
                 {.max_step_tokens = options.max_step_tokens,
                  .max_sequences = options.max_sequences,
                  .max_context = max_context_,
                  .num_drafts = options.num_drafts,
                  .share_prefixes = options.prefix_cache}),
      drafter_(ctx, model) {
  FM_CHECK(!ctx.tape, "an engine works without a tape");
  FM_CHECK(ctx.real == DType::kF32, "an engine works in f32, ctx is {}", dtype_name(ctx.real));
}

SequenceId Engine::add(Request request) {
  check_params(request.params);
  const auto n = static_cast<int64_t>(request.prompt.size());
  if (n < 1 || n >= max_context_)
    throw Error(Code::kInvalidArgument,
                fmt::format("prompt: expected 1 to {} tokens, found {}", max_context_ - 1, n),
                n < 1 ? "" : "shorten the prompt or give the engine more pages");
  for (const int32_t t : request.prompt)
    if (t < 0 || t >= model_.config.vocab_size)
      throw Error(
          Code::kInvalidArgument,
          fmt::format("prompt: expected tokens below {}, found {}", model_.config.vocab_size, t),
          "does the tokenizer belong to the model?");
  const SequenceId id = next_id_++;
  if (request.params.max_tokens == 0) {
    pending_.push_back({.id = id, .position = n, .finished = FinishReason::kLength});
    return id;
  }
  auto s = std::make_unique<Sequence>();
  s->id = id;
  s->tokens = request.prompt;
  s->request = std::move(request);
  scheduler_.add(std::move(s));
  return id;
}

bool Engine::cancel(SequenceId id) {
  const Sequence* s = scheduler_.find(id);
  if (!s) return false;
  pending_.push_back({.id = id,
                      .position = s->size(),
                      .weight_version = weight_version_,
                      .finished = FinishReason::kCancelled,
                      .routing = routing_of(*s)});
  scheduler_.remove(id);
  return true;
}

void Engine::weights_changed(int64_t version) {
  weight_version_ = version;
  scheduler_.restart_all();
}

EngineStats Engine::stats() const {
  EngineStats s = stats_;
  s.num_preempted = scheduler_.num_preempted();
  s.num_reused_tok = scheduler_.num_reused_tok();
  s.drafting_over = draft_rule_.over();
  return s;
}

Step Engine::make_step(const std::vector<PlannedRows>& plan) {
  Step step;
  step.selection = selection_;
  step.cache.cache = &pages_.storage();
  for (const PlannedRows& r : plan) {
    const Sequence& s = *r.sequence;
    const auto begin = s.tokens.begin() + r.first;
    std::vector<int32_t> tokens(begin, begin + (r.size - r.num_drafts));
    tokens.insert(tokens.end(), s.drafts.begin(), s.drafts.begin() + r.num_drafts);
    step.add_sequence(tokens, r.first);
    append_pages(s.pages, step.cache);
  }
  return step;
}

void Engine::record_routing(const std::vector<PlannedRows>& plan, const Step& step,
                            const StepOut& out) {
  if (!pages_.records_routing()) return;
  const auto A = static_cast<size_t>(model_.config.num_experts_per_tok);
  const std::vector<int64_t> layers = moe_layers(model_.config);
  const std::vector<int64_t> indexed = recorded_indexer_layers();
  const auto K = static_cast<size_t>(model_.config.index_topk);
  for (size_t b = 0; b < plan.size(); ++b) {
    const Sequence& s = *plan[b].sequence;
    for (int64_t i = 0; i < plan[b].size; ++i) {
      const int64_t position = plan[b].first + i;
      const auto row = static_cast<size_t>(step.seqs.first_row[b] + i);
      const int32_t page = s.pages[static_cast<size_t>(position / kPageTokens)];
      const std::span<uint16_t> to = pages_.routing(page, position % kPageTokens);
      const std::span<uint32_t> selected = pages_.selection(page, position % kPageTokens);
      for (size_t l = 0; l < indexed.size(); ++l) {
        const Tensor& sel_TK = out.layers[static_cast<size_t>(indexed[l])].sel_TK;
        selected[l] = selection_fingerprint({sel_TK.as<int32_t>() + row * K, K});
      }
      for (size_t l = 0; l < layers.size(); ++l) {
        const auto& routing = *out.layers[static_cast<size_t>(layers[l])].routing;
        const int32_t* from = routing.experts_TA.as<int32_t>() + row * A;
        for (size_t a = 0; a < A; ++a) to[l * A + a] = static_cast<uint16_t>(from[a]);
      }
    }
  }
}

std::vector<int64_t> Engine::recorded_indexer_layers() const {
  if (selection_ != KeySelection::kSparse) return {};
  return indexer_layers(model_.config);
}

std::shared_ptr<const RoutingRecord> Engine::routing_of(const Sequence& s) {
  if (!pages_.records_routing()) return nullptr;
  auto record = std::make_shared<RoutingRecord>();
  record->num_rows = s.num_cached;
  record->layers = moe_layers(model_.config);
  record->num_experts_per_tok = model_.config.num_experts_per_tok;
  record->indexer_layers = recorded_indexer_layers();
  for (int64_t i = 0; i < s.num_cached; ++i) {
    const int32_t page = s.pages[static_cast<size_t>(i / kPageTokens)];
    const std::span<const uint16_t> row = pages_.routing(page, i % kPageTokens);
    record->experts.insert(record->experts.end(), row.begin(), row.end());
    if (record->indexer_layers.empty()) continue;
    const std::span<const uint32_t> selected = pages_.selection(page, i % kPageTokens);
    record->selection.insert(record->selection.end(), selected.begin(), selected.end());
  }
  return record;
}

// Draws tokens from the sequence's rows until a guess fails, the rows end or the sequence does.
void Engine::draw(const View& logits_TW, Sampled& out) const {
  Sequence& s = *out.sequence;
  const SampleParams& p = s.request.params;
  const std::vector<int32_t> drafts = std::exchange(s.drafts, {});
  for (int64_t j = 0; j <= out.num_drafts; ++j) {
    Event e{.id = s.id, .position = s.size(), .weight_version = weight_version_};
    try {
      const auto row = logits_row(logits_TW, out.first_row + j);
      Draw d = draw_token(row, p, e.position);
      e.token = d.token;
      e.behaviour_logp = d.behaviour_logp;
      e.support = std::move(d.support);
      e.top = top_logprobs(row, s.request.num_top_logprobs);
      s.tokens.push_back(e.token);
      if (contains(p.stop_ids, e.token))
        e.finished = FinishReason::kStop;
      else if (s.num_generated() >= p.max_tokens || s.size() >= max_context_)
        e.finished = FinishReason::kLength;
    } catch (const Error& error) {
      e.finished = FinishReason::kError;
      e.error = error.what();
    }
    s.finished = e.finished;
    const int32_t token = e.token;
    out.events.push_back(std::move(e));
    if (s.finished != FinishReason::kNone || j == out.num_drafts ||
        token != drafts[static_cast<size_t>(j)])
      break;
  }
  // Every token but the last has its keys; rows of refused guesses do not count.
  s.num_cached = s.finished == FinishReason::kError ? s.size() : s.size() - 1;
}

std::vector<Engine::Sampled> Engine::sample(const std::vector<PlannedRows>& plan, const Step& step,
                                            const Value& hidden_TD) {
  std::vector<Sampled> out;
  std::vector<int32_t> pick;
  for (size_t b = 0; b < plan.size(); ++b) {
    const PlannedRows& r = plan[b];
    r.sequence->num_cached = r.first + r.size - r.num_drafts;
    if (!r.samples) continue;
    out.push_back({r.sequence, r.num_drafts, std::ssize(pick), {}});
    for (int32_t row = step.seqs.first_row[b + 1] - static_cast<int32_t>(r.num_drafts) - 1;
         row < step.seqs.first_row[b + 1]; ++row)
      pick.push_back(row);
  }
  if (out.empty()) return out;
  const Value picked_TD = select_rows(ctx_, hidden_TD, pick.data(), std::ssize(pick));
  const Value logits_TW = logits(ctx_, model_, picked_TD);
  ctx_.pool.parallel_for(std::ssize(out), 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) draw(logits_TW, out[static_cast<size_t>(i)]);
  });
  std::vector<int32_t> target(pick.size(), -1);
  for (const Sampled& s : out)
    for (size_t j = 0; j < s.events.size(); ++j)
      target[static_cast<size_t>(s.first_row) + j] = s.events[j].token;
  const std::vector<float> logp = row_logprob(ctx_, logits_TW, target);
  for (Sampled& s : out) {
    stats_.num_drafted += s.num_drafts;
    stats_.num_accepted += std::ssize(s.events) - 1;
    const SampleParams& p = s.sequence->request.params;
    for (size_t j = 0; j < s.events.size(); ++j) {
      Event& e = s.events[j];
      e.logp = logp[static_cast<size_t>(s.first_row) + j];
      if (p.temperature == 1 && e.support.empty()) e.behaviour_logp = e.logp;  // one distribution
    }
  }
  return out;
}

void Engine::draft(const std::vector<PlannedRows>& plan, const Step& step, const Value& hidden_TD) {
  if (options_.num_drafts == 0 || draft_rule_.over()) return;
  const bool guesses = !options_.drafts_must_pay || draft_rule_.guesses();
  std::vector<DraftRows> rows;
  for (size_t b = 0; b < plan.size(); ++b) {
    Sequence& s = *plan[b].sequence;
    const int64_t end = std::min(s.num_cached, s.size() - 1);  // row i needs token i + 1
    const bool goes_on = plan[b].samples && s.finished == FinishReason::kNone;
    rows.push_back({.sequence = &s,
                    .first = plan[b].first,
                    .size = end - plan[b].first,
                    .first_row = step.seqs.first_row[b],
                    .num_drafts = goes_on && guesses ? scheduler_.draft_limit(s) : 0});
  }
  drafter_.draft(rows, hidden_TD, selection_, pages_.storage());
}

// Steps that decode and nothing else; what the guesses for the next step cost belongs to the step
// that has guesses itself.
void Engine::count_for_rule(const std::vector<PlannedRows>& plan,
                            const std::vector<Sampled>& sampled, double seconds) {
  if (!options_.drafts_must_pay || options_.num_drafts == 0 || sampled.size() != plan.size())
    return;
  int64_t num_tokens = 0, num_guessed = 0;
  for (const Sampled& s : sampled) num_tokens += std::ssize(s.events);
  for (const PlannedRows& r : plan) {
    if (r.size != r.num_drafts + 1) return;
    num_guessed += r.num_drafts > 0 ? 1 : 0;
  }
  const auto num_sequences = std::ssize(plan);
  if (num_guessed != 0 && num_guessed != num_sequences) return;
  draft_rule_.count(num_guessed > 0, num_sequences, num_tokens, seconds);
}

std::vector<Event> Engine::step() {
  using Clock = std::chrono::steady_clock;
  const auto seconds_since = [](Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
  };
  std::vector<Event> events = std::exchange(pending_, {});
  const std::vector<PlannedRows> plan = scheduler_.plan();
  if (plan.empty()) return events;
  const Clock::time_point start = Clock::now();
  const Step step = make_step(plan);
  const StepOut out = forward(ctx_, model_, step);
  record_routing(plan, step, out);
  ++stats_.num_steps;
  stats_.num_rows += step.num_rows();
  std::vector<Sampled> sampled = sample(plan, step, out.hidden_TD);
  const double plain_s = seconds_since(start);
  draft(plan, step, out.hidden_TD);
  count_for_rule(plan, sampled, plan[0].num_drafts > 0 ? seconds_since(start) : plain_s);
  for (const PlannedRows& r : plan) scheduler_.publish(*r.sequence);
  for (Sampled& s : sampled) {
    Event& last = s.events.back();
    const bool over = s.sequence->finished != FinishReason::kNone;
    if (over) last.routing = routing_of(*s.sequence);
    for (Event& e : s.events) events.push_back(std::move(e));
    if (over) scheduler_.remove(s.sequence->id);
  }
  return events;
}

}  // namespace fathom
