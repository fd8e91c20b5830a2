#include "fathom/rl/policy_loss.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cmath>

#include "fathom/base/error.h"
#include "fathom/base/rng.h"

namespace fathom {
namespace {

using List = std::vector<double>;

PolicyOptions no_clip() {
  PolicyOptions o;
  o.surrogate = "ratio";
  o.aggregation = "constant";
  o.aggregation_length = 1;
  return o;
}

SequenceTerms one_token(double ratio, double A, const PolicyOptions& o, double prox = 0) {
  const List logp = {std::log(ratio)}, behaviour = {0}, advantage = {A}, before = {prox};
  return sequence_terms(
      {.logp = logp, .behaviour = behaviour, .prox = before, .advantage = advantage},
      {.num_seq = 1, .num_tok = 1, .longest = 1}, o);
}

// ---- truth tables ------------------------------------------------------------------------------

struct ClipCase {
  double ratio, A, value, slope;
  bool clipped;
};

TEST_CASE("clipped surrogate: value, slope and the clip count by sign of A and place of r") {
  PolicyOptions o;
  o.clip_high = 0.28;
  const ClipCase cases[] = {
      {1.0, 2, 2.0, 2.0, false},    {1.27, 2, 2.54, 2.54, false}, {1.3, 2, 2.56, 0, true},
      {0.5, 2, 1.0, 1.0, false},    {0.5, -2, -1.6, 0, true},     {0.81, -2, -1.62, -1.62, false},
      {1.3, -2, -2.6, -2.6, false}, {7.0, -2, -14, -14, false},   {7.0, 0, 0, 0, false}};
  for (const ClipCase& c : cases) {
    const SequenceTerms s = one_token(c.ratio, c.A, o);
    CHECK(s.objective[0] == doctest::Approx(c.value).epsilon(1e-14));
    CHECK(s.coefficient[0] == doctest::Approx(c.slope).epsilon(1e-14));
    CHECK(s.num_clipped == c.clipped);
  }
  o.dual_clip = 3;
  CHECK(one_token(7, -2, o).objective[0] == -6);
  CHECK(one_token(7, -2, o).coefficient[0] == 0);
  CHECK(one_token(2.9, -2, o).coefficient[0] == doctest::Approx(-5.8).epsilon(1e-14));
  CHECK(one_token(7, 2, o).objective[0] == doctest::Approx(2.56).epsilon(1e-14));
}

TEST_CASE("without an advantage or a beta nothing infinite becomes a gradient") {
  const List logp = {0}, behaviour = {-800}, ref = {-800}, none = {0};
  PolicyOptions o = policy_preset("v32");
  const SequenceTerms s = sequence_terms(
      {.logp = logp, .behaviour = behaviour, .ref = ref, .advantage = none}, {.num_seq = 1}, o);
  CHECK(std::isinf(s.ratio[0]));
  CHECK(s.coefficient == none);
  CHECK(s.total == 0);
}

TEST_CASE("cispo keeps the gradient of every token and clips its weight only") {
  PolicyOptions o = policy_preset("cispo");
  o.clip_low = 0.2;
  o.clip_high = 0.3;
  CHECK(one_token(1.1, 2, o).coefficient[0] == doctest::Approx(2.2));
  CHECK(one_token(9, 2, o).coefficient[0] == doctest::Approx(2.6));
  CHECK(one_token(9, -2, o).coefficient[0] == doctest::Approx(-2.6));
  CHECK(one_token(0.1, -2, o).coefficient[0] == doctest::Approx(-1.6));
}

TEST_CASE("old = current: the ratio is 1 whatever the behaviour was, only the mask still sees it") {
  PolicyOptions o;
  o.old = "current";
  for (const double ratio : {0.01, 1.0, 50.0}) {
    const SequenceTerms s = one_token(ratio, -2, o);
    CHECK(s.ratio[0] == 1);
    CHECK(s.coefficient[0] == -2);
    CHECK(s.divergence == doctest::Approx(-std::log(ratio)));
  }
}

TEST_CASE("detached weights: TIS caps prox / behaviour, IcePop drops what lies outside its band") {
  PolicyOptions o = policy_preset("tis");
  // prox / behaviour 3, policy / prox 1.1
  const double prox = std::log(3.0), ratio = 3 * 1.1;
  CHECK(one_token(ratio, 1, o, prox).coefficient[0] == doctest::Approx(2 * 1.1));
  o.tis_cap = 0;
  CHECK(one_token(ratio, 1, o, prox).coefficient[0] == doctest::Approx(ratio));
  o = policy_preset("icepop");
  CHECK(one_token(ratio, 1, o, prox).coefficient[0] == doctest::Approx(ratio));
  o.icepop_high = 2.9;
  CHECK(one_token(ratio, 1, o, prox).coefficient[0] == 0);
  o.icepop_high = 5;
  o.icepop_low = 3.1;
  CHECK(one_token(ratio, 1, o, prox).coefficient[0] == 0);
}

TEST_CASE("off-policy sequence mask: only A < 0 and D > delta; KL and denominators stay") {
  PolicyOptions o = policy_preset("v32");
  for (const double A : {-1.0, 1.0})
    for (const double D : {0.05, 0.15}) {
      const List behaviour = {-1, -1}, logp = {-1 - 2 * D, -1}, ref = {-1.5, -0.5}, a = {A, A};
      SequenceInput in{.logp = logp, .behaviour = behaviour, .ref = ref, .advantage = a, .beta = 1};
      PolicyCounts counts{.num_seq = 4, .opsm_delta = 0.1};
      const SequenceTerms got = sequence_terms(in, counts, o);
      CHECK(got.divergence == doctest::Approx(D));
      CHECK(got.masked == (A < 0 && D > 0.1));
      PolicyOptions only_kl = o;
      only_kl.surrogate = "off";
      const SequenceTerms kl = sequence_terms(in, counts, only_kl);
      CHECK((got.coefficient == kl.coefficient) == got.masked);
      counts.opsm_delta = std::numeric_limits<double>::infinity();
      const SequenceTerms open = sequence_terms(in, counts, o);
      CHECK((open.coefficient == got.coefficient) == !got.masked);
      o.mask_kl = true;
      counts.opsm_delta = 0.1;
      CHECK((sequence_terms(in, counts, o).coefficient == List{0, 0}) == got.masked);
      o.mask_kl = false;
    }
}

TEST_CASE("divergence splits into mismatch and staleness; the geometric band masks both signs") {
  PolicyOptions o = policy_preset("tis");
  const List behaviour = {-1, -2}, prox = {-1.1, -2.3}, logp = {-1.2, -2.1}, a = {1, 1};
  const SequenceInput in{.logp = logp, .behaviour = behaviour, .prox = prox, .advantage = a};
  const SequenceTerms s = sequence_terms(in, {.num_seq = 1}, o);
  CHECK(s.mismatch == doctest::Approx(0.2));
  CHECK(s.staleness == doctest::Approx(-0.05));
  CHECK(s.divergence == doctest::Approx(0.15));
  o.geometric_low = 0.87;
  CHECK(sequence_terms(in, {.num_seq = 1}, o).masked);
  o.geometric_low = 0.86;
  CHECK(!sequence_terms(in, {.num_seq = 1}, o).masked);
  o.geometric_high = 0.85;
  CHECK(sequence_terms(in, {.num_seq = 1}, o).masked);
}

TEST_CASE("aggregation: mean of means, mean over tokens, sums by a constant; left-out answers") {
  const List logp(4, -1), a(4, 1);
  SequenceInput in{.logp = logp, .behaviour = logp, .advantage = a};
  const PolicyCounts counts{.num_seq = 5, .num_tok = 50, .longest = 20};
  PolicyOptions o;
  const auto first = [&] { return sequence_terms(in, counts, o).coefficient[0]; };
  CHECK(first() == 1.0 / 20);
  o.aggregation = "token";
  CHECK(first() == 1.0 / 50);
  o.aggregation = "constant";
  CHECK(first() == 1.0 / 100);
  o.aggregation_length = 8;
  CHECK(first() == 1.0 / 40);
  in.left_out = true;
  CHECK(first() == 0);
  CHECK(sequence_terms(in, counts, o).total == 0);
}

TEST_CASE("delta of the sequence mask: off, fixed, or a quantile with a floor") {
  PolicyOptions o;
  const List d = {0.5, 0.01, 0.2, 0.3, 0.1};
  CHECK(resolve_opsm_delta(o, {}) == std::numeric_limits<double>::infinity());
  o.opsm_delta = "0.25";
  CHECK(resolve_opsm_delta(o, {}) == 0.25);
  o.opsm_delta = "auto:0.8";
  CHECK(resolve_opsm_delta(o, d) == 0.3);
  o.opsm_delta = "auto:1";
  CHECK(resolve_opsm_delta(o, d) == 0.5);
  o.opsm_delta = "auto:0";
  CHECK(resolve_opsm_delta(o, d) == o.opsm_floor);
  CHECK_THROWS_AS(resolve_opsm_delta(o, {}), Error);
  for (const char* bad : {"auto", "auto:2", "-1", "0.1x", ""}) {
    o.opsm_delta = bad;
    CHECK_THROWS_AS(resolve_opsm_delta(o, d), Error);
  }
}

TEST_CASE("every preset is valid, unknown names and words are errors, betas go by domain") {
  for (const std::string& name : policy_preset_names()) {
    const PolicyOptions o = policy_preset(name);
    check_policy_options(o);
    if (o.opsm_delta != "off") CHECK(resolve_opsm_delta(o, List{0}) > 0);
  }
  CHECK_THROWS_AS(policy_preset("v33"), Error);
  PolicyOptions o = policy_preset("v32");
  o.kl_domains = {"maths=0", "agent=0.5"};
  check_policy_options(o);
  CHECK(kl_beta_of(o, "maths") == 0);
  CHECK(kl_beta_of(o, "agent") == 0.5);
  CHECK(kl_beta_of(o, "code") == o.kl_beta);
  o.kl_domains = {"maths"};
  CHECK_THROWS_AS(check_policy_options(o), Error);
  o = {};
  o.ratio = "tokens";
  CHECK_THROWS_AS(check_policy_options(o), Error);
  o = {};
  o.clip_low = -1;
  CHECK_THROWS_AS(check_policy_options(o), Error);
}

// ---- finite differences ------------------------------------------------------------------------

struct RandomSequence {
  explicit RandomSequence(uint64_t seed) {
    Rng rng(seed, "sequence");
    for (int t = 0; t < 5; ++t) {
      behaviour.push_back(-3 * rng.uniform());
      prox.push_back(behaviour.back() + 0.2 * rng.normal());
      logp.push_back(prox.back() + 0.3 * rng.normal());
      ref.push_back(behaviour.back() + rng.normal());
      advantage.push_back(rng.normal());
    }
  }
  SequenceInput input() const { return {logp, behaviour, prox, ref, advantage, 0.7}; }
  List logp, behaviour, prox, ref, advantage;
};

int check_slopes(const PolicyOptions& o, uint64_t seed) {
  constexpr double kStep = 1e-6;
  RandomSequence s(seed);
  const PolicyCounts counts{.num_seq = 3, .num_tok = 17, .longest = 9};
  const SequenceTerms at = sequence_terms(s.input(), counts, o);
  int compared = 0;
  for (size_t t = 0; t < s.logp.size(); ++t) {
    const double keep = s.logp[t];
    const auto moved = [&](double step) {
      s.logp[t] = keep + step;
      return sequence_terms(s.input(), counts, o);
    };
    const SequenceTerms up = moved(kStep), down = moved(-kStep);
    s.logp[t] = keep;
    if (up.num_clipped != down.num_clipped || up.masked != down.masked) continue;  // a kink
    ++compared;
    const double want = (up.total - down.total) / (2 * kStep);
    CHECK_MESSAGE(at.coefficient[t] == doctest::Approx(want).epsilon(1e-6).scale(0.1),
                  fmt::format("{} {} {} seed {} token {}: {} {}", o.surrogate, o.ratio, o.kl, seed,
                              t, at.coefficient[t], want));
  }
  return compared;
}

TEST_CASE("the coefficient is the derivative of the objective: every kind of every option") {
  int compared = 0;
  for (const char* surrogate : {"clip", "ratio", "off"})
    for (const char* ratio : {"token", "sequence", "output"})
      for (const char* kl : {"none", "k1", "k2", "k3", "unbiased"})
        for (const char* aggregation : {"sequence", "token", "constant"})
          for (const char* importance : {"none", "tis", "icepop"})
            for (uint64_t seed = 0; seed < 3; ++seed) {
              PolicyOptions o;
              o.surrogate = surrogate;
              o.ratio = ratio;
              o.kl = kl;
              o.aggregation = aggregation;
              o.importance = importance;
              o.old = importance == std::string("none") ? "behaviour" : "prox";
              o.dual_clip = seed == 2 ? 1.5 : 0;
              compared += check_slopes(o, seed);
            }
  CHECK(compared > 5900);  // of 6075
}

// ---- enumeration -------------------------------------------------------------------------------

// All answers of up to three tokens over {0, 1, 2}; token 2 ends. One row of logits per prefix.
struct Answer {
  std::vector<size_t> state, token;
};
constexpr size_t kVocab = 3, kStates = 1 + 2 + 4;

using Table = std::vector<std::array<double, kVocab>>;  // [state]

Table random_table(uint64_t seed, double scale) {
  Rng rng(seed, "table");
  Table t(kStates);
  for (auto& row : t) {
    double sum = 0;
    for (double& x : row) sum += x = std::exp(scale * rng.normal());
    for (double& x : row) x /= sum;
  }
  return t;
}

std::vector<Answer> all_answers() {
  std::vector<Answer> done, open = {{}};
  for (int length = 0; length < 3; ++length) {
    std::vector<Answer> longer;
    for (const Answer& a : open)
      for (size_t token = 0; token < kVocab; ++token) {
        Answer b = a;
        b.state.push_back(a.token.empty() ? 0 : 2 * a.state.back() + 1 + a.token.back());
        b.token.push_back(token);
        (token == 2 || length == 2 ? done : longer).push_back(b);
      }
    open = longer;
  }
  return done;
}

List logps(const Table& p, const Answer& a) {
  List out;
  for (size_t t = 0; t < a.token.size(); ++t) out.push_back(std::log(p[a.state[t]][a.token[t]]));
  return out;
}

double probability(const Table& p, const Answer& a) {
  double product = 1;
  for (size_t t = 0; t < a.token.size(); ++t) product *= p[a.state[t]][a.token[t]];
  return product;
}

Table zeros() { return Table(kStates); }

// grad += factor * sum_t coefficient[t] * d log pi(token t) / d logits
void add_gradient(const Table& pi, const Answer& a, const List& coefficient, double factor,
                  Table* grad) {
  for (size_t t = 0; t < a.token.size(); ++t)
    for (size_t w = 0; w < kVocab; ++w)
      (*grad)[a.state[t]][w] +=
          factor * coefficient[t] * ((w == a.token[t] ? 1 : 0) - pi[a.state[t]][w]);
}

double distance(const Table& a, const Table& b, double factor = 1) {
  double worst = 0;
  for (size_t s = 0; s < kStates; ++s)
    for (size_t w = 0; w < kVocab; ++w)
      worst = std::max(worst, std::fabs(a[s][w] - factor * b[s][w]));
  return worst;
}

double reward_of(const Answer& a) {
  double r = 0;
  for (size_t t = 0; t < a.token.size(); ++t)
    r += std::sin(1.7 * static_cast<double>(a.token[t] + 3 * t + a.state[t]));
  return r;
}

// d E_pi[R] / d logits by values of states: visit probability * pi * (Q - V).
struct Exact {
  Table pi, grad = zeros();
  double value(size_t state, size_t length, double so_far, double visit) {
    std::array<double, kVocab> q{};
    double v = 0;
    for (size_t w = 0; w < kVocab; ++w) {
      const double r = so_far + std::sin(1.7 * static_cast<double>(w + 3 * length + state));
      q[w] =
          w == 2 || length == 2 ? r : value(2 * state + 1 + w, length + 1, r, visit * pi[state][w]);
      v += pi[state][w] * q[w];
    }
    for (size_t w = 0; w < kVocab; ++w) grad[state][w] += visit * pi[state][w] * (q[w] - v);
    return v;
  }
};

// Expected gradient over all groups of two answers of `behaviour`.
Table expected_gradient(const Table& pi, const Table& behaviour, const PolicyOptions& o) {
  const std::vector<Answer> answers = all_answers();
  Table grad = zeros();
  for (const Answer& a : answers)
    for (const Answer& b : answers) {
      const double chance = probability(behaviour, a) * probability(behaviour, b);
      const double R = reward_of(a), other = reward_of(b);
      const double A = o.advantage == "leave_one_out" ? R - other : R - (R + other) / 2;
      const List logp = logps(pi, a), old = logps(behaviour, a), advantage(logp.size(), A);
      // Of the two answers, the second gives the same by symmetry.
      const SequenceTerms s = sequence_terms(
          {.logp = logp, .behaviour = old, .advantage = advantage}, {.num_seq = 2}, o);
      add_gradient(pi, a, s.coefficient, 2 * chance, &grad);
    }
  return grad;
}

TEST_CASE("enumeration: the expected gradient of a group is the exact policy gradient") {
  CHECK(all_answers().size() == 15);
  Exact exact{random_table(1, 0.8)};
  exact.value(0, 0, 0, 1);
  PolicyOptions o = no_clip();
  o.advantage = "leave_one_out";
  CHECK(distance(expected_gradient(exact.pi, exact.pi, o), exact.grad) < 1e-14);
  o.advantage = "mean";  // the own reward is in the mean: a factor (G - 1) / G
  CHECK(distance(expected_gradient(exact.pi, exact.pi, o), exact.grad, 0.5) < 1e-14);
  // Off-policy the product of all ratios is exact, the ratio of each token alone is not.
  const Table behaviour = random_table(2, 0.8);
  o.advantage = "leave_one_out";
  o.ratio = "output";
  o.aggregation = "sequence";
  CHECK(distance(expected_gradient(exact.pi, behaviour, o), exact.grad) < 1e-14);
  o.ratio = "token";
  o.aggregation = "constant";
  CHECK(distance(expected_gradient(exact.pi, behaviour, o), exact.grad) > 1e-2);
  // The mean over an answer's tokens favours short ones.
  o.aggregation = "sequence";
  CHECK(distance(expected_gradient(exact.pi, exact.pi, o), exact.grad) > 1e-2);
}

// Sum over states, as `behaviour` visits them, of KL(p || q), and its gradient by the logits of pi,
// which is p or q.
struct ExactKl {
  double value = 0;
  Table grad = zeros();
};
ExactKl exact_kl(const Table& behaviour, const Table& pi, const Table& ref, bool reverse) {
  ExactKl out;
  std::array<double, kStates> visit{};
  for (const Answer& a : all_answers())
    for (const size_t s : a.state) visit[s] += probability(behaviour, a);
  for (size_t s = 0; s < kStates; ++s) {
    double kl = 0;
    for (size_t w = 0; w < kVocab; ++w) kl += pi[s][w] * std::log(pi[s][w] / ref[s][w]);
    if (reverse) out.value += visit[s] * kl;
    for (size_t w = 0; w < kVocab; ++w)
      out.grad[s][w] += visit[s] * (reverse ? pi[s][w] * (std::log(pi[s][w] / ref[s][w]) - kl)
                                            : pi[s][w] - ref[s][w]);
  }
  return out;
}

// What an objective that consists of its KL expects over the answers of `behaviour`.
ExactKl estimated_kl(const Table& behaviour, const Table& pi, const Table& ref,
                     const PolicyOptions& o) {
  ExactKl out;
  for (const Answer& a : all_answers()) {
    const List logp = logps(pi, a), old = logps(behaviour, a), r = logps(ref, a);
    const List advantage(logp.size());
    const SequenceTerms s = sequence_terms(
        {.logp = logp, .behaviour = old, .ref = r, .advantage = advantage, .beta = 1},
        {.num_seq = 1, .num_tok = 1}, o);
    out.value -= probability(behaviour, a) * s.total;
    add_gradient(pi, a, s.coefficient, -probability(behaviour, a), &out.grad);
  }
  return out;
}

ExactKl estimated_kl(const Table& behaviour, const Table& pi, const Table& ref, const char* kind) {
  PolicyOptions o = no_clip();
  o.surrogate = "off";
  o.kl = kind;
  return estimated_kl(behaviour, pi, ref, o);
}

TEST_CASE("enumeration: on-policy distillation is the reverse KL to the teacher at each token") {
  const Table student = random_table(6, 0.7), teacher = random_table(7, 0.7);
  for (const uint64_t seed : {6, 8}) {  // sampled by the student, or by an older one
    const Table behaviour = random_table(seed, 0.7);
    const ExactKl want = exact_kl(behaviour, student, teacher, true);
    const ExactKl got = estimated_kl(behaviour, student, teacher, policy_preset("opd"));
    CHECK(std::fabs(got.value - want.value) < 1e-14);
    CHECK(distance(got.grad, want.grad) < 1e-14);
  }
  const ExactKl same = estimated_kl(student, student, student, policy_preset("opd"));
  CHECK(same.value == 0);
  CHECK(distance(same.grad, zeros()) == 0);
}

TEST_CASE("enumeration: r k3 with the gradient through r is the reverse KL, value and gradient") {
  const Table pi = random_table(3, 0.7), behaviour = random_table(4, 0.7),
              ref = random_table(5, 0.7);
  const ExactKl want = exact_kl(behaviour, pi, ref, true);
  const ExactKl got = estimated_kl(behaviour, pi, ref, "unbiased");
  CHECK(std::fabs(got.value - want.value) < 1e-14);
  CHECK(distance(got.grad, want.grad) < 1e-14);
  // What the others are, on-policy: k3 the forward KL's gradient, k2 the reverse one's, k1 nothing.
  const ExactKl on_policy = exact_kl(pi, pi, ref, true), forward = exact_kl(pi, pi, ref, false);
  CHECK(distance(estimated_kl(pi, pi, ref, "k3").grad, forward.grad) < 1e-14);
  CHECK(std::fabs(estimated_kl(pi, pi, ref, "k3").value - on_policy.value) < 1e-14);
  CHECK(distance(estimated_kl(pi, pi, ref, "k2").grad, on_policy.grad) < 1e-14);
  CHECK(distance(estimated_kl(pi, pi, ref, "k1").grad, zeros()) < 1e-14);
  CHECK(distance(estimated_kl(pi, pi, ref, "k3").grad, on_policy.grad) > 1e-2);
  CHECK(distance(estimated_kl(behaviour, pi, ref, "k3").grad, want.grad) > 1e-2);
}

TEST_CASE("equal rewards give a gradient of exactly zero, and log-probs of the rollout ratio 1") {
  for (const std::string& name : policy_preset_names()) {
    PolicyOptions o = policy_preset(name);
    o.kl_beta = 0;
    const List logp = {-0.1, -2.5, -0.7}, zero(3), one(3, 1);
    SequenceInput in{.logp = logp, .behaviour = logp, .prox = logp, .ref = logp, .advantage = zero};
    const PolicyCounts counts{.num_seq = 2, .num_tok = 6, .longest = 3};
    SequenceTerms s = sequence_terms(in, counts, o);
    CHECK(s.coefficient == zero);
    CHECK(s.ratio == one);
    CHECK(s.divergence == 0);
    CHECK(s.kl == zero);
  }
}

}  // namespace
}  // namespace fathom
