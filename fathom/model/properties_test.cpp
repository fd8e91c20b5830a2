// What must hold for every family whatever the weights are: equal bits for every way to cut the
// same work, and equal values for the two forms of MLA.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "fathom/base/rng.h"
#include "fathom/base/thread_pool.h"
#include "fathom/model/checkpoint_source.h"
#include "fathom/model/tensor_names.h"
#include "fathom/ops/fp8.h"

namespace fathom {
namespace {

const char* const kFamilies[] = {"v32-nano",     "v3-tiny",          "v2lite-tiny",
                                 "v2-tiny",      "moonlight-tiny",   "kimi-tiny",
                                 "glm-dsa-tiny", "mscale-split-tiny"};

ModelConfig family(const std::string& name) {
  ModelConfig c = read_config("tests/golden/" + name + "/config.json");
  c.initializer_range = 0.15;  // far from uniform attention
  return c;
}

struct Engine {
  explicit Engine(DType type = DType::kF32, int threads = 1) : pool(threads), real(type) {}
  Ctx ctx() {
    return {.kernels = real == DType::kF64 ? cpu_ref() : cpu_simd(),
            .pool = pool,
            .arena = arena,
            .real = real};
  }
  ThreadPool pool;
  Arena arena;
  DType real;
};

std::vector<int32_t> random_tokens(const ModelConfig& c, int n, uint64_t seed = 1) {
  Rng rng(seed, "tokens");
  std::vector<int32_t> out;
  for (int i = 0; i < n; ++i)
    out.push_back(static_cast<int32_t>(rng.below(static_cast<uint64_t>(c.vocab_size))));
  return out;
}

std::vector<int32_t> part(const std::vector<int32_t>& v, int begin, int end) {
  return {v.begin() + begin, v.begin() + end};
}

Step step_of(const ModelConfig& c, bool sparse = true) {
  Step s;
  s.selection = sparse && c.has_dsa() ? KeySelection::kSparse : KeySelection::kDense;
  return s;
}

Value run(Engine& e, const Model& m, const Step& s, StepOut* out = nullptr) {
  Ctx ctx = e.ctx();
  StepOut here = forward(ctx, m, s);
  const Value y = logits(ctx, m, here.hidden_TD);
  if (out) *out = std::move(here);
  return y;
}

// Rows [first, first + b.rows) of a against b, bit for bit.
bool same_rows(const View& a, int64_t first, const View& b) {
  const View rows = slice(a, 0, first, b.dim[0]);
  return std::memcmp(rows.data, b.data, static_cast<size_t>(b.size_bytes())) == 0;
}

double distance(const View& a, const View& b) {
  double worst = 0, largest = 0;
  for (int64_t i = 0; i < a.numel(); ++i) {
    worst = std::max(worst, std::fabs(get_element(a, i) - get_element(b, i)));
    largest = std::max(largest, std::fabs(get_element(a, i)));
  }
  return worst / largest;
}

// The experts that a pass chose, to force them upon another one.
std::vector<View> experts_of(const StepOut& out) {
  std::vector<View> forced;
  for (const LayerOut& l : out.layers)
    forced.push_back(l.routing ? l.routing->experts_TA.view : View());
  return forced;
}

TEST_CASE("naive and absorbed form agree: 1e-12 in f64, 1e-5 in f32") {
  for (const char* name : kFamilies)
    for (const bool sparse : {false, true})
      for (const DType real : {DType::kF64, DType::kF32}) {
        Engine e(real);
        const ModelConfig c = family(name);
        const Model m = random_model(e.ctx(), c, 2);
        Step s = step_of(c, sparse);
        s.add_sequence(random_tokens(c, 23));
        s.add_sequence(random_tokens(c, 9, 2));
        StepOut out;
        const Value absorbed = run(e, m, s, &out);
        s.form = AttnForm::kNaive;
        s.forced_experts = experts_of(out);  // a rounding must not choose another expert
        const double d = distance(absorbed, run(e, m, s));
        CHECK_MESSAGE(d <= (real == DType::kF64 ? 1e-12 : 1e-5),
                      name << " sparse " << sparse << " " << d);
        CHECK(d > 0);  // they are two computations
      }
}

TEST_CASE("sparse attention equals dense bit for bit while every key is selected") {
  for (const char* name : {"v32-nano", "glm-dsa-tiny"}) {
    Engine e;
    ModelConfig c = family(name);
    c.index_topk = 24;
    const Model m = random_model(e.ctx(), c, 2);
    for (const int length : {1, 23, 24, 25}) {
      Step sparse = step_of(c), dense = step_of(c, false);
      for (Step* s : {&sparse, &dense}) s->add_sequence(random_tokens(c, length));
      const Value a = run(e, m, sparse), b = run(e, m, dense);
      const int64_t equal = std::min<int64_t>(length, 24);
      CHECK(same_rows(a, 0, slice(b.view(), 0, 0, equal)));
      if (length > 24) CHECK_FALSE(same_rows(a, 24, slice(b.view(), 0, 24, 1)));
    }
  }
}

// Feeds a sequence in chunks through a cache whose pages lie in no order.
Value through_cache(Engine& e, const Model& m, const std::vector<int32_t>& tokens, int chunk,
                    const Tensor& all_TW, bool all_scores = false,
                    CacheForm form = CacheForm::kF32) {
  KvCache cache(e.arena, m.config, 8, form);
  const int n = static_cast<int>(tokens.size());
  for (int begin = 0; begin < n; begin += chunk) {
    Step s = step_of(m.config);
    s.cache = {.cache = &cache, .page = {5, 2, 7}, .first_page = {0}};
    s.all_scores = all_scores;
    s.add_sequence(part(tokens, begin, std::min(n, begin + chunk)), begin);
    const Value y = run(e, m, s);
    copy(y.view(), slice(all_TW.view, 0, begin, y->dim[0]));
  }
  return constant(all_TW);
}

TEST_CASE("prefill in one piece, in chunks of any size and token by token give the same bits") {
  for (const char* name : kFamilies) {
    Engine e(DType::kF32, 2);
    const ModelConfig c = family(name);
    const Model m = random_model(e.ctx(), c, 3);
    const auto check = [&](int length, const std::vector<int>& chunks) {
      const std::vector<int32_t> tokens = random_tokens(c, length);
      Step s = step_of(c);
      s.add_sequence(tokens);
      const Value whole = run(e, m, s);
      const Tensor all = empty(e.arena, DType::kF32, {length, c.vocab_size});
      for (const int chunk : chunks)
        CHECK_MESSAGE(same_rows(whole, 0, through_cache(e, m, tokens, chunk, all).view()),
                      name << ", " << length << " tokens in chunks of " << chunk);
    };
    std::vector<int> every;
    for (int i = 1; i <= 19; ++i) every.push_back(i);
    check(19, every);
    check(134, {1, 5, 63, 64, 65, 134});  // over page borders, three pages
  }
}

TEST_CASE("rows that select all keys need no scores of the indexer, later rows find its keys") {
  for (const char* name : {"v32-nano", "glm-dsa-tiny"})
    for (const CacheForm form :
         {CacheForm::kF32, CacheForm::kBF16, CacheForm::kInt8, CacheForm::kInt8Latent}) {
      Engine e(DType::kF32, 2);
      ModelConfig c = family(name);
      c.index_topk = 11;
      const Model m = random_model(e.ctx(), c, 5);
      const std::vector<int32_t> tokens = random_tokens(c, 26);
      const Tensor with = empty(e.arena, DType::kF32, {26, c.vocab_size}),
                   without = empty(e.arena, DType::kF32, {26, c.vocab_size});
      for (const int chunk : {1, 2, 4, 9}) {
        through_cache(e, m, tokens, chunk, with, true, form);
        through_cache(e, m, tokens, chunk, without, false, form);
        CHECK_MESSAGE(same_rows(with.view, 0, without.view), name << " chunks of " << chunk);
      }
      Step s = step_of(c);
      s.add_sequence(part(tokens, 0, 11));
      s.add_sequence(part(tokens, 11, 15));
      StepOut out[2];
      for (const bool all : {false, true}) {
        s.all_scores = all;
        run(e, m, s, &out[all]);
      }
      for (size_t l = 0; l < out[0].layers.size(); ++l)
        CHECK(same_rows(out[0].layers[l].sel_TK, 0, out[1].layers[l].sel_TK));
    }
}

TEST_CASE("a ragged batch gives each sequence the bits that it gets alone") {
  for (const char* name : kFamilies) {
    Engine e;
    const ModelConfig c = family(name);
    const Model m = random_model(e.ctx(), c, 4);
    for (const bool sparse : {false, true}) {
      Step all = step_of(c, sparse);
      const int lengths[] = {7, 1, 70, 16, 2};
      uint64_t seed = 0;
      for (const int n : lengths) all.add_sequence(random_tokens(c, n, ++seed));
      const Value batch = run(e, m, all);
      seed = 0;
      int64_t row = 0;
      for (const int n : lengths) {
        Step one = step_of(c, sparse);
        one.add_sequence(random_tokens(c, n, ++seed));
        CHECK_MESSAGE(same_rows(batch, row, run(e, m, one)), name << ": " << n << " tokens");
        row += n;
      }
    }
  }
}

TEST_CASE("decoding beside prefills of other sequences changes no bit") {
  Engine e(DType::kF32, 2);
  for (const char* name : {"v32-nano", "v2lite-tiny", "glm-dsa-tiny"}) {
    const ModelConfig c = family(name);
    const Model m = random_model(e.ctx(), c, 4);
    const std::vector<int32_t> a = random_tokens(c, 30, 1), b = random_tokens(c, 21, 2);
    KvCache cache(e.arena, c, 4, CacheForm::kF32);
    const CachePages of_a{.cache = &cache, .page = {3}, .first_page = {0}};
    Step prefill = step_of(c);
    prefill.cache = of_a;
    prefill.add_sequence(part(a, 0, 29));
    run(e, m, prefill);
    Step mixed = step_of(c);
    mixed.cache = {.cache = &cache, .page = {3, 1}, .first_page = {0, 1}};
    mixed.add_sequence(part(a, 29, 30), 29);
    mixed.add_sequence(b);
    const Value got = run(e, m, mixed);
    for (const auto& [tokens, row] : {std::pair{a, 0}, {b, 1}}) {
      Step alone = step_of(c);
      alone.add_sequence(tokens);
      const Value want = run(e, m, alone);
      if (row == 0)
        CHECK(same_rows(got, 0, slice(want.view(), 0, 29, 1)));
      else
        CHECK(same_rows(got, 1, want));
    }
  }
}

TEST_CASE("1 and 2 threads give the same bits, in both forms") {
  for (const char* name : kFamilies) {
    Engine one(DType::kF32, 1), two(DType::kF32, 2);
    const ModelConfig c = family(name);
    const Model m1 = random_model(one.ctx(), c, 5), m2 = random_model(two.ctx(), c, 5);
    for (const AttnForm form : {AttnForm::kAbsorbed, AttnForm::kNaive}) {
      Step s = step_of(c);
      s.form = form;
      s.add_sequence(random_tokens(c, 90));
      s.add_sequence(random_tokens(c, 33, 2));
      CHECK_MESSAGE(same_rows(run(one, m1, s), 0, run(two, m2, s)), name);
    }
  }
}

TEST_CASE(
    "forced experts: a pass forced to its own choice has the same bits, to another choice not") {
  for (const char* name : kFamilies) {
    Engine e;
    const ModelConfig c = family(name);
    const Model m = random_model(e.ctx(), c, 6);
    Step s = step_of(c);
    s.add_sequence(random_tokens(c, 12));
    StepOut out;
    const Value free = run(e, m, s, &out);
    s.forced_experts = experts_of(out);
    CHECK_MESSAGE(same_rows(free, 0, run(e, m, s)), name);
    if (c.n_routed_experts == 0 || c.n_routed_experts == c.num_experts_per_tok) continue;
    std::vector<Tensor> moved;
    for (View& v : s.forced_experts) {
      if (!v) continue;
      moved.push_back(empty(e.arena, DType::kI32, {v.dim[0], v.dim[1]}));
      for (int64_t i = 0; i < v.numel(); ++i)
        moved.back().as<int32_t>()[i] =
            (v.as<int32_t>()[i] + 1) % static_cast<int32_t>(c.n_routed_experts);
      v = moved.back();
    }
    if (!moved.empty()) CHECK_FALSE(same_rows(free, 0, run(e, m, s)));
  }
}

TEST_CASE("layers without an indexer use the selection of the nearest one before") {
  Engine e;
  const ModelConfig c = family("glm-dsa-tiny");
  const Model m = random_model(e.ctx(), c, 7);
  Step s = step_of(c);
  s.add_sequence(random_tokens(c, 40));
  StepOut out;
  run(e, m, s, &out);
  int shared = 0, own = 0;
  for (int64_t l = 1; l < c.num_hidden_layers; ++l) {
    const auto at = static_cast<size_t>(l);
    const Tensor &here = out.layers[at].sel_TK, &before = out.layers[at - 1].sel_TK;
    CHECK(static_cast<bool>(m.weights.layers[at].attention.indexer) == c.has_indexer(l));
    if (c.has_indexer(l)) {
      own += !same_rows(here.view, 0, before.view);
    } else {
      ++shared;
      CHECK(same_rows(here.view, 0, before.view));
    }
  }
  CHECK(shared > 0);
  CHECK(own > 0);
}

TEST_CASE("the Hadamard rotation is orthonormal: twice is the identity, scores do not change") {
  Engine e(DType::kF64);
  Ctx ctx = e.ctx();
  Rng rng(1, "rows");
  const Tensor x = empty(e.arena, DType::kF64, {6, 128});
  for (int64_t i = 0; i < x.view.numel(); ++i) x.as<double>()[i] = rng.normal();
  const Value y = hadamard(ctx, constant(x)), back = hadamard(ctx, y);
  CHECK(distance(x, y) > 0.1);
  CHECK(distance(x, back) < 1e-14);
  const auto dot = [](const View& v, int64_t a, int64_t b) {
    double s = 0;
    for (int64_t i = 0; i < 128; ++i)
      s += v.as<double>()[a * 128 + i] * v.as<double>()[b * 128 + i];
    return s;
  };
  for (int64_t a = 0; a < 6; ++a)
    for (int64_t b = 0; b < 6; ++b)
      CHECK(dot(x, a, b) == doctest::Approx(dot(y, a, b)).epsilon(1e-12));
}

TEST_CASE("parameters have the published names, shapes and order") {
  for (const char* name : kFamilies) {
    Engine e;
    const ModelConfig c = family(name);
    const Model m = random_model(e.ctx(), c, 8);
    std::vector<std::string> want, got, want_buffers, got_buffers;
    int64_t numbers = 0;
    for (const TensorSpec& t : tensor_specs(c)) {
      if (t.optional || (c.tie_word_embeddings && t.kind == TensorKind::kHead)) continue;
      (t.kind == TensorKind::kCorrectionBias ? want_buffers : want).push_back(t.name);
      if (t.kind != TensorKind::kCorrectionBias) numbers += t.numel();
    }
    for (const Param& p : m.weights.params) {
      got.push_back(p.name);
      numbers -= p.value->numel();
    }
    for (const Param& p : m.weights.buffers) got_buffers.push_back(p.name);
    CHECK_MESSAGE(got == want, name);
    CHECK(got_buffers == want_buffers);
    CHECK(numbers == 0);
  }
}

}  // namespace
}  // namespace fathom
