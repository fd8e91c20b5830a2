#include "fathom/cli/bench_infer.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <optional>

#include "fathom/base/file.h"
#include "fathom/base/json.h"
#include "fathom/base/thread_pool.h"
#include "fathom/cli/args.h"
#include "fathom/cli/busy_processes.h"
#include "fathom/cli/html_chart.h"
#include "fathom/cli/infer_timer.h"
#include "fathom/cli/inspect.h"
#include "fathom/cli/machine.h"
#include "fathom/cli/peer.h"
#include "fathom/cli/runtime.h"
#include "fathom/cli/serve_model.h"
#include "fathom/cli/shape.h"
#include "fathom/infer/engine.h"
#include "fathom/kernels/cpu/simd/peak.h"
#include "fathom/kernels/cpu/simd/target.h"
#include "fathom/model/checkpoint_source.h"
#include "fathom/model/synthetic.h"

namespace fathom {
namespace {

constexpr double kPeakSeconds = 0.05;
constexpr double kBusySeconds = 1;  // many turns of the scheduler
constexpr size_t kBandwidthBytes = size_t{256} << 20;
constexpr int64_t kCheckedRows = 4;
constexpr const char* kStored = "stored";  // the type of a folder's weights

struct Row {
  std::string type;
  int threads = 0;
  int64_t depth = 0;
  TimedPass prefill, decode;
  double prefill_rate = 0, decode_rate = 0;  // tokens per second, at the median
  double best_prefill = 0, best_decode = 0;  // of the fastest repetition
  // The fastest repetition against the highest FMA peak, and read bandwidth, seen so far: on a
  // shared machine medians say more about the others.
  double prefill_percent = 0, decode_percent = 0;
  bool same_bits = false;
  double batch_rate = 0;   // decode of several sequences, all together; 0: not measured
  double draft_steps = 0;  // of a step with guesses, in steps without; 0: not measured
  double busy_rate = 0;    // decode beside busy processes; 0: not measured
  double regions = 0;      // parallel ones of a decoded token
  // Of the peer, at the median of the rounds; 0: none.
  double peer_prefill = 0, peer_decode = 0, peer_batch = 0;
  bool has_peer() const { return peer_prefill > 0 || peer_decode > 0 || peer_batch > 0; }
};

bool is_checkpoint(const std::string& path) {
  return file_exists(path + "/model.safetensors") ||
         file_exists(path + "/model.safetensors.index.json");
}

Quant quant_of_type(const std::string& type) {
  return type == "q8" || type == "q4" ? parse_quant(type) : Quant::kNone;
}

// Of a shape; codes are made from bf16.
SyntheticForm form_of_type(const std::string& type) {
  return quant_of_type(type) != Quant::kNone ? SyntheticForm::kBF16 : parse_synthetic_form(type);
}

// Bytes of weights that one token reads; `scores`: those of the indexer's queries too.
double weight_reads(const ModelConfig& config, SyntheticForm form, Quant quant, bool scores) {
  const SyntheticWeights weights(config, form, 0);
  std::map<std::string_view, double> bytes;
  for (const SafetensorsEntry& e : weights.entries()) {
    double n = static_cast<double>(dtype_bytes(e.dtype));
    for (const int64_t size : e.shape) n *= static_cast<double>(size);
    bytes[e.name] = n;
  }
  double total = 0;
  for (const TensorSpec& spec : tensor_specs(config)) {
    if (!scores && (spec.name.ends_with("indexer.wq_b.weight") ||
                    spec.name.ends_with("indexer.weights_proj.weight")))
      continue;
    const auto scale = bytes.find(scale_name(spec.name));
    double n = bytes.at(spec.name) + (scale == bytes.end() ? 0 : scale->second);
    Quant q = quant_of(spec, quant);
    if (quant != Quant::kNone && spec.name.ends_with("kv_b_proj.weight")) q = Quant::kQ8;
    if (q != Quant::kNone)
      n = static_cast<double>(spec.numel()) * ((q == Quant::kQ8 ? 1 : 0.5) + 2.0 / kQuantGroupSize);
    total += share_per_token(spec, config) * n;
  }
  return total;
}

// One model with one type of weights.
class Bench {
 public:
  Bench(const BenchInferOptions& o, const std::string& type) : o_(o), type_(type) {
    Ctx ctx = runtime_.ctx();
    const Quant quant = quant_of_type(type);
    if (is_checkpoint(o.model)) {
      model_ = load_model(ctx, o.model, WeightUse::kServe, {.quant = quant});
      for (const bool scores : {false, true})
        weight_bytes_[scores] =
            quant == Quant::kNone
                ? inspect_model(o.model, {}).bytes_per_token
                : weight_reads(model_.config, SyntheticForm::kBF16, quant, scores);
    } else {
      const SyntheticForm form = form_of_type(type);
      model_.config = synthetic_config(
          cut_layers(read_shape(o.model), {.mtp_layers = o.drafts > 0 ? 1 : 0}), form);
      const auto source = synthetic_source(ctx.arena, ctx.pool, model_.config, form, 1);
      model_.weights =
          load_weights(ctx, model_.config, *source, WeightUse::kServe, {.quant = quant});
      for (const bool scores : {false, true})
        weight_bytes_[scores] = weight_reads(model_.config, form, quant, scores);
    }
    if (o.drafts > 0 && model_.config.num_nextn_predict_layers == 0)
      throw Error(Code::kInvalidArgument,
                  fmt::format("{}: expected a multi-token prediction layer, found none", o.model));
    selection_ =
        usable_selection(model_.config, o.dense ? KeySelection::kDense : KeySelection::kSparse);
    const double deepest = *std::max_element(o.depths.begin(), o.depths.end());
    cache_ = parse_cache_option(o.cache);
    timer_.emplace(ctx, model_, selection_, cache_, static_cast<int64_t>(deepest),
                   std::max({o.prefill, kCheckedRows, 2 * o.drafts + 1}), o.sequences);
  }

  const ModelConfig& config() const { return model_.config; }

  Row run(int threads, int64_t depth) {
    ThreadPool pool(threads);
    Ctx ctx{.kernels = runtime_.ctx().kernels,
            .pool = pool,
            .arena = runtime_.arena,
            .real = DType::kF32};
    Row r{.type = type_, .threads = threads, .depth = depth};
    r.same_bits = timer_->same_bits(ctx, depth, kCheckedRows);
    Peaks& peaks = peaks_[threads];
    TimedPass batch;
    PeerRates peer;
    for (int64_t round = 0; round < o_.rounds; ++round) {
      peaks.see(pool, buffer_);
      r.prefill.add(timer_->run(ctx, depth, o_.prefill, o_.seconds).pass_s);
      peaks.see(pool, buffer_);
      const int64_t regions = pool.num_regions();
      const TimedPass decode = timer_->run(ctx, depth, 1, o_.seconds);
      r.regions = static_cast<double>(pool.num_regions() - regions) /
                  static_cast<double>(decode.pass_s.size() + 1);  // the first one is not timed
      r.decode.add(decode.pass_s);
      if (o_.sequences > 1)
        batch.add(timer_->run_sequences(ctx, depth, o_.sequences, o_.seconds).pass_s);
      peaks.see(pool, buffer_);
      if (!o_.peer.empty()) ask_peer(threads, depth, &peer);
    }
    r.peer_prefill = median(peer.prefill);
    r.peer_decode = median(peer.decode);
    r.peer_batch = median(peer.sequences);
    const double rows = static_cast<double>(o_.prefill);
    r.prefill_rate = rows / r.prefill.median_s;
    r.best_prefill = rows / r.prefill.best_s;
    r.decode_rate = 1 / r.decode.median_s;
    r.best_decode = 1 / r.decode.best_s;
    r.prefill_percent = 100 * prefill_flops(depth) / r.prefill.best_s / peaks.fma;
    const bool scores = selection_ == KeySelection::kSparse && depth + 1 > model_.config.index_topk;
    const double read =
        weight_bytes_[scores] + cache_reads(model_.config, depth + 1, attending(), cache_);
    r.decode_percent = 100 * read / r.decode.best_s / peaks.bandwidth;
    if (o_.sequences > 1) r.batch_rate = static_cast<double>(o_.sequences) / batch.median_s;
    if (o_.drafts > 0)
      r.draft_steps =
          timer_->run_with_drafts(ctx, depth, o_.drafts, o_.seconds).median_s / r.decode.median_s;
    if (o_.busy > 0) {
      const BusyProcesses busy(static_cast<int>(o_.busy));
      r.busy_rate = 1 / timer_->run(ctx, depth, 1, std::max(o_.seconds, kBusySeconds)).mean_s;
    }
    return r;
  }

 private:
  void ask_peer(int threads, int64_t depth, PeerRates* rates) const {
    const PeerRow row{threads, depth, o_.prefill, o_.sequences};
    pick_figures(run_peer(fill_in(o_.peer, row), o_.peer_seconds), row, rates);
  }

  Attending attending() const {
    return selection_ == KeySelection::kSparse ? Attending::kSparse : Attending::kDenseAbsorbed;
  }

  // Only the last row of a prompt's piece has logits.
  double prefill_flops(int64_t depth) const {
    const ModelConfig& c = model_.config;
    const double head = 2 * static_cast<double>(c.vocab_size * c.hidden_size);
    double sum = -static_cast<double>(o_.prefill - 1) * head;
    const TokenFlops fixed = token_flops(c, 1, attending());
    const TokenFlops more = token_flops(c, 2, attending());  // scores are linear in the keys
    for (int64_t i = 0; i < o_.prefill; ++i) {
      const double keys = static_cast<double>(depth + i + 1);
      const double attended = attending() == Attending::kSparse
                                  ? std::min(keys, static_cast<double>(c.index_topk))
                                  : keys;
      sum += fixed.weights + (more.indexer - fixed.indexer) * keys + fixed.attention * attended;
    }
    return sum;
  }

  // Highest so far.
  struct Peaks {
    double fma = 0, bandwidth = 0;
    void see(ThreadPool& pool, const HugeBuffer& buffer) {
      fma = std::max(fma, measure_fma_peak(pool, kPeakSeconds));
      bandwidth =
          std::max(bandwidth, measure_read_bandwidth(pool, buffer.as<char>(), buffer.size_bytes()));
    }
  };

  const BenchInferOptions& o_;
  std::string type_;
  Runtime runtime_;
  Model model_;
  KeySelection selection_ = KeySelection::kDense;
  double weight_bytes_[2] = {};  // that a token reads without and with scores of the indexer
  CacheForm cache_ = CacheForm::kF32;
  std::optional<InferTimer> timer_;
  HugeBuffer buffer_{kBandwidthBytes};
  std::map<int, Peaks> peaks_;  // by threads
};

std::string json_line(const Row& r, const BenchInferOptions& o, const Machine& machine) {
  Json line = Json::object();
  line.set("bench", Json::string("infer"));
  line.set("model", Json::string(o.model));
  line.set("type", Json::string(r.type));
  line.set("threads", Json::number(int64_t{r.threads}));
  line.set("depth", Json::number(r.depth));
  line.set("prefill_tokens", Json::number(o.prefill));
  line.set("prefill_tokens_per_s", Json::number(r.prefill_rate));
  line.set("prefill_best_tokens_per_s", Json::number(r.best_prefill));
  line.set("prefill_percent_of_fma_peak", Json::number(r.prefill_percent));
  line.set("prefill_spread", Json::number(r.prefill.spread));
  line.set("decode_tokens_per_s", Json::number(r.decode_rate));
  line.set("decode_best_tokens_per_s", Json::number(r.best_decode));
  line.set("decode_percent_of_bandwidth", Json::number(r.decode_percent));
  line.set("decode_spread", Json::number(r.decode.spread));
  if (r.batch_rate > 0) {
    line.set("sequences", Json::number(o.sequences));
    line.set("sequences_decode_tokens_per_s", Json::number(r.batch_rate));
  }
  if (r.draft_steps > 0) {
    line.set("drafts", Json::number(o.drafts));
    line.set("step_with_drafts_in_steps", Json::number(r.draft_steps));
  }
  line.set("decode_regions_per_token", Json::number(r.regions));
  if (r.busy_rate > 0) line.set("busy_decode_tokens_per_s", Json::number(r.busy_rate));
  if (r.has_peer()) line.set("peer", Json::string(o.peer));
  const auto compare = [&](const std::string& what, double ours, double peer) {
    if (peer <= 0) return;
    line.set("peer_" + what + "_tokens_per_s", Json::number(peer));
    line.set(what + "_ratio", Json::number(ours / peer));
  };
  compare("prefill", r.prefill_rate, r.peer_prefill);
  compare("decode", r.decode_rate, r.peer_decode);
  compare("sequences_decode", r.batch_rate, r.peer_batch);
  line.set("same_bits", Json::boolean(r.same_bits));
  line.set("dense", Json::boolean(o.dense));
  line.set("cache", Json::string(o.cache));
  line.set("isa", Json::string(simd_target_name()));
  line.set("cpu", Json::string(machine.cpu));
  return line.dump() + "\n";
}

// A step gives one token and those that were guessed right.
std::string drafts_text(double steps, int64_t drafts) {
  const double needed = steps - 1, all = static_cast<double>(drafts);
  return needed >= all
             ? fmt::format("with {} guessed {:.2f} of a step: never pays", drafts, steps)
             : fmt::format(
                   "with {} guessed {:.2f} of a step: pays from {:.2f} right ones on, {:.2f} "
                   "times as fast when all are",
                   drafts, steps, std::max(0.0, needed), (1 + all) / steps);
}

std::string peer_text(const Row& r, const BenchInferOptions& o) {
  std::string text;
  const auto add = [&](const std::string& what, double ours, double peer) {
    if (peer > 0)
      text += fmt::format("{} {} {:.1f} tok/s, ratio {:.2f}", text.empty() ? "" : ";", what, peer,
                          ours / peer);
  };
  add(fmt::format("prefill {}", o.prefill), r.prefill_rate, r.peer_prefill);
  add("decode", r.decode_rate, r.peer_decode);
  add(fmt::format("{} sequences", o.sequences), r.batch_rate, r.peer_batch);
  return text;
}

void print_row(const Row& r, const BenchInferOptions& o, int64_t layers) {
  fmt::print(
      "{:<7} {:>7} {:>7} {:>11.1f} {:>6.0f}% {:>9.1f} {:>6.1f}% {:>11.1f} {:>6.0f}% {:>9.1f} "
      "{:>6.1f}%  {}\n",
      r.type, r.threads, r.depth, r.prefill_rate, 100 * r.prefill.spread, r.best_prefill,
      r.prefill_percent, r.decode_rate, 100 * r.decode.spread, r.best_decode, r.decode_percent,
      r.same_bits ? "same" : "DIFFERENT");
  if (r.regions > 0)
    fmt::print("        decode: {:.1f} parallel regions a token, {:.1f} a layer\n", r.regions,
               r.regions / static_cast<double>(layers));
  if (r.batch_rate > 0)
    fmt::print("        {} sequences in a step {:.1f} tok/s in all, {:.1f} times one alone\n",
               o.sequences, r.batch_rate, r.batch_rate / r.decode_rate);
  if (r.draft_steps > 0) fmt::print("        {}\n", drafts_text(r.draft_steps, o.drafts));
  if (r.busy_rate > 0)
    fmt::print("        beside busy processes {:.1f} tok/s in the mean: {:.0f} % of the quiet\n",
               r.busy_rate, 100 * r.busy_rate / r.decode_rate);
  if (r.has_peer()) fmt::print("        peer:{}\n", peer_text(r, o));
  std::fflush(stdout);
}

Chart chart_of(const std::vector<Row>& rows, bool decode) {
  Chart chart{.title = decode ? "Decode: tokens per second against depth"
                              : "Prefill: tokens per second against depth",
              .x_label = "tokens in the cache before",
              .y_label = "tokens per second",
              .y_scale = Scale::kLog,
              .points = true};
  const auto add = [&](const std::string& what, const Row& r, double rate) {
    const std::string name =
        fmt::format("{}, {} thread{}", what, r.threads, r.threads == 1 ? "" : "s");
    if (chart.lines.empty() || chart.lines.back().name != name)
      chart.lines.push_back({.name = name});
    chart.lines.back().x.push_back(static_cast<double>(r.depth));
    chart.lines.back().y.push_back(rate);
  };
  for (const Row& r : rows) add(r.type, r, decode ? r.decode_rate : r.prefill_rate);
  for (const Row& r : rows) {  // the peer was asked again for every type
    const double rate = decode ? r.peer_decode : r.peer_prefill;
    if (rate > 0 && r.type == rows.front().type) add("peer", r, rate);
  }
  return chart;
}

std::string rate_text(double rate) {
  return rate <= 0 ? "-" : fmt::format("{:.{}f}", rate, rate < 100 ? 1 : 0);
}

std::string ratio_text(double ours, double peer) {
  return peer <= 0 ? "-" : fmt::format("{:.2f}", ours / peer);
}

std::string page(const std::vector<Row>& rows, const std::string& what) {
  std::vector<std::vector<std::string>> cells;
  for (const Row& r : rows)
    cells.push_back({r.type, fmt::format("{}", r.threads), fmt::format("{}", r.depth),
                     rate_text(r.prefill_rate), rate_text(r.best_prefill),
                     fmt::format("{:.0f}", r.prefill_percent), rate_text(r.decode_rate),
                     rate_text(r.best_decode), fmt::format("{:.0f}", r.decode_percent),
                     rate_text(r.busy_rate), rate_text(r.peer_prefill),
                     ratio_text(r.prefill_rate, r.peer_prefill), rate_text(r.peer_decode),
                     ratio_text(r.decode_rate, r.peer_decode)});
  return html_page(
      "fathom bench infer",
      fmt::format("<h1>fathom bench infer</h1>\n<p>{}</p>\n{}\n{}\n{}", html_escape(what),
                  chart_html(chart_of(rows, false)), chart_html(chart_of(rows, true)),
                  table_html({"weights", "threads", "depth", "prefill tok/s", "best", "% FMA",
                              "decode tok/s", "best", "% read", "busy", "peer's prefill", "ratio",
                              "peer's decode", "ratio"},
                             cells)));
}

void check_usage(const BenchInferOptions& o) {
  const auto whole = [](const char* name, const std::vector<double>& list, double least) {
    for (const double x : list)
      if (!(x >= least && x <= 1e9) || x != static_cast<double>(static_cast<int64_t>(x)))
        throw UsageError(
            fmt::format("{}: expected whole numbers from {}, found {}", name, least, x));
  };
  whole("--threads", o.threads, 1);
  whole("--depths", o.depths, 0);
  whole("--sequences", {static_cast<double>(o.sequences)}, 1);
  whole("--rounds", {static_cast<double>(o.rounds)}, 1);
  whole("--busy", {static_cast<double>(o.busy)}, 0);
  if (o.depths.empty() || o.types.empty())
    throw UsageError("expected a depth and a type of weights");
  if (o.drafts < 0)
    throw UsageError(fmt::format("--drafts: expected at least 0, found {}", o.drafts));
  if (!(o.peer_seconds > 0))
    throw UsageError(fmt::format("--peer-seconds: expected more than 0, found {}", o.peer_seconds));
  if (o.prefill < 1)
    throw UsageError(fmt::format("--prefill: expected at least 1, found {}", o.prefill));
  for (const std::string& type : o.types) {
    try {
      form_of_type(type);
    } catch (const Error& e) {
      throw UsageError("--types: " + e.message());
    }
  }
}

// As stored, and in codes.
std::vector<std::string> types_of_folder(const std::vector<std::string>& wanted) {
  std::vector<std::string> out = {kStored};
  for (const std::string& type : wanted)
    if (quant_of_type(type) != Quant::kNone) out.push_back(type);
  return out;
}

}  // namespace

int run_bench_infer(const BenchInferOptions& o) {
  check_usage(o);
  const Machine machine = inspect_machine();
  std::vector<double> threads = o.threads;
  if (threads.empty()) {
    threads.push_back(1);
    if (machine.cores > 1) threads.push_back(machine.cores);
  }
  const std::vector<std::string> types =
      is_checkpoint(o.model) ? types_of_folder(o.types) : o.types;
  std::vector<Row> rows;
  std::string lines, what;
  bool good = true;
  for (const std::string& type : types) {
    Bench bench(o, type);
    if (what.empty()) {
      const ParameterCounts n = count_parameters(bench.config());
      what = fmt::format("{}: {:.1f} M parameters, {:.1f} M active; {}, {}; cache {}, {} attention",
                         o.model, static_cast<double>(n.total) / 1e6,
                         static_cast<double>(n.active) / 1e6, machine.cpu, simd_target_name(),
                         o.cache, o.dense || !bench.config().has_dsa() ? "dense" : "sparse");
      fmt::print("{}\n\n{:<7} {:>7} {:>7} {:>11} {:>7} {:>9} {:>7} {:>11} {:>7} {:>9} {:>7}  {}\n",
                 what, "weights", "threads", "depth", fmt::format("prefill {}", o.prefill),
                 "spread", "best", "% FMA", "decode", "spread", "best", "% read", "bits");
    }
    for (const double t : threads)
      for (const double depth : o.depths) {
        rows.push_back(bench.run(static_cast<int>(t), static_cast<int64_t>(depth)));
        print_row(rows.back(), o, bench.config().num_hidden_layers);
        lines += json_line(rows.back(), o, machine);
        good = good && rows.back().same_bits;
      }
  }
  if (!o.json.empty()) write_file_atomic(o.json, lines);
  if (!o.plot.empty()) {
    write_file_atomic(o.plot, page(rows, what));
    fmt::print("\nplot: {}\n", o.plot);
  }
  return good ? kExitOk : kExitFailed;
}

}  // namespace fathom
