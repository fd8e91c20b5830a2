#include "fathom/cli/bench_attention.h"

#include <fmt/core.h>

#include <cstdio>
#include <vector>

#include "fathom/base/file.h"
#include "fathom/base/json.h"
#include "fathom/cli/args.h"
#include "fathom/cli/html_chart.h"
#include "fathom/cli/machine.h"
#include "fathom/cli/runtime.h"
#include "fathom/kernels/bench_attention.h"
#include "fathom/kernels/cpu/simd/target.h"

namespace fathom {
namespace {

constexpr double kTolerance =
    1e-4;  // of the largest output, f32 against the f64 sums of the reference

std::string position_text(int64_t p) {
  return p % 1024 == 0 ? fmt::format("{}K", p / 1024) : fmt::format("{}", p);
}

std::string shared_text(const AttentionBenchRow& r) {
  return r.at.decode ? "-" : fmt::format("{:.0f}%", 100 * r.shared);
}

std::string json_line(const AttentionBenchRow& r, const BenchAttentionOptions& o, int threads,
                      const Machine& machine) {
  Json line = Json::object();
  line.set("bench", Json::string("attention"));
  line.set("mode", Json::string(r.at.decode ? "decode" : "prefill"));
  line.set("position", Json::number(r.at.position));
  line.set("dense_us", Json::number(r.dense_us));
  line.set("sparse_us", Json::number(r.sparse_us));
  line.set("select_us", Json::number(r.select_us));
  line.set("gathered_us", Json::number(r.gathered_us));
  line.set("dense_best_us", Json::number(r.dense_best_us));
  line.set("sparse_best_us", Json::number(r.sparse_best_us));
  line.set("dense_spread", Json::number(r.dense_spread));
  line.set("sparse_spread", Json::number(r.sparse_spread));
  line.set("repetitions", Json::number(int64_t{r.repetitions}));
  line.set("threads", Json::number(int64_t{threads}));
  if (!r.at.decode) line.set("shared", Json::number(r.shared));
  line.set("index_topk", Json::number(o.index_topk));
  line.set("isa", Json::string(simd_target_name()));
  line.set("cpu", Json::string(machine.cpu));
  return line.dump() + "\n";
}

void print_row(const AttentionBenchRow& r) {
  fmt::print(
      "{:<8} {:>8} {:>12.1f} {:>10.1f} {:>6.0f}% {:>10.1f} {:>10.1f} {:>6.0f}% {:>10.1f} {:>10.1f} "
      "{:>6} {:>6.2f}\n",
      r.at.decode ? "decode" : "prefill", position_text(r.at.position), r.dense_us, r.dense_best_us,
      100 * r.dense_spread, r.sparse_us, r.sparse_best_us, 100 * r.sparse_spread, r.select_us,
      r.gathered_us, shared_text(r), r.dense_us / r.sparse_us);
  std::fflush(stdout);
}

void write_text(const std::string& path, const std::string& text) {
  AtomicWriter file(path);
  file.write(text.data(), text.size());
  file.commit();
}

std::string page(const std::vector<AttentionBenchRow>& rows, const BenchAttentionOptions& o,
                 const std::string& machine) {
  Chart chart{.title = "Attention of one layer: cost of a token against its position",
              .x_label = "position",
              .y_label = "microseconds a token",
              .x_scale = Scale::kLog2,
              .y_scale = Scale::kLog,
              .points = true};
  for (const bool decode : {false, true})
    for (const bool sparse : {false, true}) {
      ChartLine line{
          .name = fmt::format("{} {}", decode ? "decode" : "prefill", sparse ? "sparse" : "dense")};
      for (const AttentionBenchRow& r : rows) {
        if (r.at.decode != decode) continue;
        line.x.push_back(static_cast<double>(r.at.position));
        line.y.push_back(sparse ? r.sparse_us : r.dense_us);
      }
      chart.lines.push_back(std::move(line));
    }
  chart.marks.push_back({static_cast<double>(o.index_topk), "index_topk"});
  std::vector<std::vector<std::string>> cells;
  for (const AttentionBenchRow& r : rows)
    cells.push_back({r.at.decode ? "decode" : "prefill", position_text(r.at.position),
                     fmt::format("{:.1f}", r.dense_us), fmt::format("{:.1f}", r.sparse_us),
                     fmt::format("{:.1f}", r.select_us), fmt::format("{:.1f}", r.gathered_us),
                     shared_text(r), fmt::format("{:.2f}", r.dense_us / r.sparse_us)});
  return html_page("fathom bench attention",
                   fmt::format("<h1>fathom bench attention</h1>\n<p>{}</p>\n{}\n{}",
                               html_escape(machine), chart_html(chart),
                               table_html({"mode", "position", "dense us", "sparse us", "select us",
                                           "gathered us", "shared", "dense / sparse"},
                                          cells)));
}

}  // namespace

int run_bench_attention(const BenchAttentionOptions& o) {
  if (o.min_position < 1 || o.max_position < o.min_position || o.chunk < 1 || o.index_topk < 1)
    throw UsageError(fmt::format("expected 1 <= min_position <= max_position, found {} and {}",
                                 o.min_position, o.max_position),
                     "chunk and index_topk are at least 1 too");
  if (!(o.alike >= 0 && o.alike <= 1))
    throw UsageError(fmt::format("expected --alike between 0 and 1, found {}", o.alike),
                     "0: neighbours choose independently; 1: all choose the same keys");
  Runtime rt(Precision::kF32, o.threads);
  const Machine machine = inspect_machine();
  AttentionBench bench(rt.ctx().kernels, rt.ctx().exec(),
                       {.H = o.num_attention_heads,
                        .C = o.kv_lora_rank,
                        .R = o.qk_rope_head_dim,
                        .J = o.index_n_heads,
                        .I = o.index_head_dim,
                        .K = o.index_topk,
                        .bf16_keys = o.bf16,
                        .alike = o.alike},
                       o.max_position);
  const std::string what = fmt::format(
      "{}, {}, {} threads; {} heads over a latent of {} + {}, indexer {} x {}, top {}, cache {}",
      machine.cpu, simd_target_name(), rt.pool.size(), o.num_attention_heads, o.kv_lora_rank,
      o.qk_rope_head_dim, o.index_n_heads, o.index_head_dim, o.index_topk, o.bf16 ? "bf16" : "f32");
  fmt::print("{}\n", what);
  const double error = bench.check();
  const bool good = error <= kTolerance;
  fmt::print("worst difference from the reference {:.1e}: {}\n\n", error, good ? "ok" : "WRONG");
  fmt::print("{:<8} {:>8} {:>12} {:>10} {:>7} {:>10} {:>10} {:>7} {:>10} {:>10} {:>6} {:>6}\n",
             "mode", "position", "dense us/tok", "best", "spread", "sparse", "best", "spread",
             "select", "gathered", "shared", "gain");
  std::vector<AttentionBenchRow> rows;
  std::string lines;
  for (const bool decode : {false, true})
    for (int64_t p = o.min_position; p <= o.max_position; p *= 2) {
      rows.push_back(bench.run({.decode = decode, .position = p, .chunk = o.chunk}, o.seconds));
      print_row(rows.back());
      lines += json_line(rows.back(), o, rt.pool.size(), machine);
    }
  if (!o.json.empty()) write_text(o.json, lines);
  if (!o.plot.empty()) {
    write_text(o.plot, page(rows, o, what));
    fmt::print("\nplot: {}\n", o.plot);
  }
  return good ? kExitOk : kExitFailed;
}

}  // namespace fathom
