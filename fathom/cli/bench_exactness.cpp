#include "fathom/cli/bench_exactness.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstdio>
#include <vector>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/base/json.h"
#include "fathom/base/thread_pool.h"
#include "fathom/cli/command.h"
#include "fathom/cli/machine.h"
#include "fathom/cli/shape.h"
#include "fathom/kernels/bench_exactness.h"
#include "fathom/kernels/cpu/simd/target.h"
#include "fathom/model/config.h"
#include "fathom/tensor/arena.h"

namespace fathom {
namespace {

// Of the largest output: f32 sums of up to 4096 terms in two orders.
constexpr double kTolerance = 1e-5;

struct Row {
  std::string name;
  ExactnessCase at;
};

// The matrices that one token of the main model is multiplied with; products within a head count
// as one of the same size.
std::vector<ProductShape> token_products(const ModelConfig& c) {
  const int64_t D = c.hidden_size, L = c.num_hidden_layers, H = c.num_attention_heads;
  const int64_t Q = c.q_lora_rank > 0 ? c.q_lora_rank : D;
  std::vector<ProductShape> out = {{c.vocab_size, D, 1},
                                   {H * c.qk_head_dim(), Q, L},
                                   {c.kv_lora_rank + c.qk_rope_head_dim, D, L},
                                   {H * c.kv_lora_rank, c.qk_nope_head_dim, L},
                                   {H * c.v_head_dim, c.kv_lora_rank, L},
                                   {D, H * c.v_head_dim, L}};
  if (c.q_lora_rank > 0) out.push_back({Q, D, L});
  int64_t indexers = 0, experts = 0;
  for (int64_t l = 0; l < L; ++l) {
    indexers += c.has_dsa() && c.has_indexer(l);
    experts += c.is_moe_layer(l);
  }
  const auto ffn = [&](int64_t width, int64_t count) {
    if (width == 0 || count == 0) return;
    out.push_back({width, D, 2 * count});
    out.push_back({D, width, count});
  };
  if (indexers > 0) {
    out.push_back({c.index_n_heads * c.index_head_dim, Q, indexers});
    out.push_back({c.index_head_dim, D, indexers});
  }
  ffn(c.intermediate_size, L - experts);
  ffn(c.moe_intermediate_size, experts * c.num_experts_per_tok);
  ffn(c.shared_intermediate_size(), experts);
  return out;
}

std::vector<Row> rows_of(const BenchExactnessOptions& o) {
  std::vector<Row> rows;
  const ModelConfig config = read_shape(o.model);
  const AttentionShape attention{.heads = config.num_attention_heads,
                                 .latent = config.kv_lora_rank,
                                 .rope = config.qk_rope_head_dim};
  const std::pair<PackedType, const char*> types[] = {
      {PackedType::kF32, "f32"}, {PackedType::kBF16, "bf16"}, {PackedType::kQ8, "q8"}};
  for (const auto& [type, name] : types)
    for (const int64_t m : {1, 2, 4, 16})
      for (const int64_t n : {512, 4096})
        rows.push_back({fmt::format("{} M={} N={} K={}", name, m, n, n),
                        {.type = type, .m = m, .products = {{n, n}}}});
  for (const int64_t keys : {512, 2048, 8192})
    rows.push_back(
        {fmt::format("attention {} keys", keys), {.attention = attention, .keys = keys}});
  for (const auto& [type, name] : types) {
    ExactnessCase token{.type = type, .products = token_products(config), .attention = attention};
    token.attention.layers = config.num_hidden_layers;
    token.keys = o.depth;
    rows.push_back({fmt::format("token of {}, {}, depth {}", o.model, name, o.depth), token});
  }
  return rows;
}

std::string json_line(const Row& row, const ExactnessResult& r, int threads) {
  Json line = Json::object();
  line.set("bench", Json::string("exactness"));
  line.set("row", Json::string(row.name));
  line.set("threads", Json::number(int64_t{threads}));
  line.set("best_s", Json::number(r.best_s));
  line.set("spread", Json::number(r.spread));
  for (const LooseResult& l : r.loose) {
    Json one = Json::object();
    one.set("best_s", Json::number(l.best_s));
    one.set("cost", Json::number(l.cost));
    one.set("error", Json::number(l.error));
    line.set(l.name, std::move(one));
  }
  line.set("isa", Json::string(simd_target_name()));
  line.set("cpu", Json::string(inspect_machine().cpu));
  return line.dump() + "\n";
}

void print(const Row& row, const ExactnessResult& r) {
  fmt::print("{:<34} {:>10.1f}", row.name, 1e6 * r.best_s);
  for (const char* name : {"sums cut over threads", "dots of rows", "each the fastest"}) {
    const auto l = std::ranges::find(r.loose, name, &LooseResult::name);
    if (l == r.loose.end())
      fmt::print(" {:>10} {:>8}", "-", "");
    else
      fmt::print(" {:>10.1f} {:>+7.1f}%", 1e6 * l->best_s, 100 * l->cost);
  }
  fmt::print(" {:>+8.1f}% {:>5.0f}% {:>8.0e} {}\n", 100 * std::max(0.0, r.fastest().cost),
             100 * r.spread, r.fastest().error, r.fastest().same_bits ? "same" : "differ");
  std::fflush(stdout);
}

}  // namespace

int run_bench_exactness(const BenchExactnessOptions& options) {
  const Machine machine = inspect_machine();
  const int threads = options.threads > 0 ? static_cast<int>(options.threads) : machine.cores;
  if (options.depth < 1)
    throw Error(Code::kInvalidArgument,
                fmt::format("--depth: expected at least 1, found {}", options.depth));
  std::vector<Row> rows = rows_of(options);
  std::erase_if(rows, [&](const Row& r) { return r.name.find(options.filter) == r.name.npos; });
  if (rows.empty())
    throw Error(Code::kNotFound, fmt::format("no row matches \"{}\"", options.filter),
                "run `fathom bench exactness` without --filter to see all");
  ThreadPool pool(threads);
  Arena arena;
  const Exec exec{&pool, &arena};
  fmt::print(
      "{}, {}, {} threads. Microseconds of the fastest call, all variants measured in turn: the\n"
      "kernels whose bits depend on a row alone; and looser orders of the same sums: k cut over\n"
      "the threads and added in order of arrival (attention: the keys), dot products of stored\n"
      "rows with many partial sums, and mixed: each product of a token in its own fastest way.\n"
      "%: how much longer the exact call takes; price: than the fastest, 0 where exact wins.\n"
      "Then the spread of the exact calls, the largest difference of the results relative to the\n"
      "largest of them, and whether any bit differs\n\n",
      machine.cpu, simd_target_name(), threads);
  fmt::print("{:<34} {:>10} {:>19} {:>19} {:>19} {:>9} {:>6} {:>8} bits\n", "", "exact", "cut sums",
             "dots", "mixed", "price", "spread", "differ");
  std::string lines;
  bool right = true;
  for (const Row& row : rows) {
    const ExactnessResult r = measure_exactness(cpu_simd(), exec, row.at, options.seconds);
    if (r.loose.empty()) continue;  // one thread, coded weights: there is nothing to loosen
    for (const LooseResult& l : r.loose) right = right && l.error < kTolerance;
    print(row, r);
    lines += json_line(row, r, threads);
  }
  if (!options.json.empty()) write_file_atomic(options.json, lines);
  if (!right) fmt::print("WRONG: a variant is further away than {:.0e}\n", kTolerance);
  return right ? kExitOk : kExitFailed;
}

}  // namespace fathom
