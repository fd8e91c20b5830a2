#include "fathom/rl/policy_loss.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <vector>

#include "fathom/base/error.h"

namespace fathom {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// mean of a - b
double mean_difference(std::span<const double> a, std::span<const double> b) {
  double sum = 0;
  for (size_t t = 0; t < a.size(); ++t) sum += a[t] - b[t];
  return a.empty() ? 0 : sum / static_cast<double>(a.size());
}

std::span<const double> denominator(const SequenceInput& in, const PolicyOptions& o) {
  if (o.old == "current") return in.logp;
  return o.old == "prox" ? in.prox : in.behaviour;
}

std::vector<double> ratios(const SequenceInput& in, const PolicyOptions& o) {
  const std::span<const double> old = denominator(in, o);
  std::vector<double> r(in.logp.size());
  if (o.ratio == "token") {
    for (size_t t = 0; t < r.size(); ++t) r[t] = std::exp(in.logp[t] - old[t]);
  } else {
    const double n = o.ratio == "output" ? static_cast<double>(r.size()) : 1;
    std::fill(r.begin(), r.end(), std::exp(n * mean_difference(in.logp, old)));
  }
  return r;
}

// The detached factor of a token.
double importance_of(const SequenceInput& in, size_t t, const PolicyOptions& o) {
  if (o.importance == "none") return 1;
  const double w = std::exp(in.prox[t] - in.behaviour[t]);
  if (o.importance == "icepop") return w >= o.icepop_low && w <= o.icepop_high ? w : 0;
  return o.tis_cap > 0 ? std::min(w, o.tis_cap) : w;
}

// A term of one token and its slope: by the log-prob, or by the logarithm of the ratio.
struct Term {
  double value = 0, slope = 0;
  bool clipped = false;
};

Term surrogate(double r, double logp, double A, const PolicyOptions& o) {
  if (o.surrogate == "off" || A == 0) return {};  // whatever r is, were it infinite
  const double low = 1 - o.clip_low, high = 1 + o.clip_high;
  if (o.surrogate == "cispo") {
    const double w = std::clamp(r, low, high);
    return {w * A * logp, w * A, w != r};
  }
  if (o.surrogate == "clip" && ((A > 0 && r > high) || (A < 0 && r < low)))
    return {(A > 0 ? high : low) * A, 0, true};
  if (o.dual_clip > 0 && A < 0 && r > o.dual_clip) return {o.dual_clip * A, 0, true};
  return {r * A, r * A};
}

// token_ratio is that of the policy to the behaviour, whatever the ratio of the surrogate.
Term divergence_term(double logp, double ref, double token_ratio, const PolicyOptions& o) {
  const double d = logp - ref;
  if (o.kl == "k1") return {d, 1};
  if (o.kl == "k2") return {d * d / 2, d};
  const double k3 = std::expm1(-d) + d;
  if (o.kl == "k3") return {k3, -std::expm1(-d)};
  return {token_ratio * k3, token_ratio * d};
}

double token_weight(size_t num_tok, const PolicyCounts& c, const PolicyOptions& o) {
  if (o.aggregation == "token") return c.num_tok > 0 ? 1 / static_cast<double>(c.num_tok) : 0;
  const int64_t constant = o.aggregation_length > 0 ? o.aggregation_length : c.longest;
  const double length =
      o.aggregation == "constant" ? static_cast<double>(constant) : static_cast<double>(num_tok);
  return c.num_seq > 0 && length > 0 ? 1 / (static_cast<double>(c.num_seq) * length) : 0;
}

bool outside_band(double divergence, const PolicyOptions& o) {
  const double ratio = std::exp(-divergence);
  return (o.geometric_low > 0 && ratio < o.geometric_low) ||
         (o.geometric_high > 0 && ratio > o.geometric_high);
}

void check_input(const SequenceInput& in, const PolicyOptions& o) {
  const size_t n = in.logp.size();
  const bool needs_prox = o.old == "prox" || o.importance != "none";
  const bool needs_ref = o.kl != "none" && in.beta != 0;
  FM_CHECK(in.behaviour.size() == n && in.advantage.size() == n, "{} tokens, {} and {}", n,
           in.behaviour.size(), in.advantage.size());
  FM_CHECK(in.prox.size() == n || (in.prox.empty() && !needs_prox), "{} tokens, {} prox", n,
           in.prox.size());
  FM_CHECK(in.ref.size() == n || (in.ref.empty() && !needs_ref), "{} tokens, {} ref", n,
           in.ref.size());
}

// Surrogate of all tokens; slopes of a shared ratio are spread over the tokens that it depends on.
void add_surrogate(const SequenceInput& in, const PolicyCounts& counts, const PolicyOptions& o,
                   double weight, SequenceTerms* s) {
  const size_t n = in.logp.size();
  const bool shared = o.ratio != "token" && o.surrogate != "cispo";
  const bool off_policy = s->divergence > counts.opsm_delta,
             banned = outside_band(s->divergence, o);
  double shared_slope = 0;
  for (size_t t = 0; t < n; ++t) {
    const double A = in.advantage[t];
    if (banned || (off_policy && A < 0)) {
      s->masked = true;
      continue;
    }
    const double w = importance_of(in, t, o);
    const Term term = surrogate(s->ratio[t], in.logp[t], A, o);
    s->objective[t] += w * term.value;
    s->num_clipped += term.clipped;
    if (shared)
      shared_slope += weight * w * term.slope;
    else
      s->coefficient[t] += weight * w * term.slope;
  }
  if (!shared || n == 0) return;
  const double each = o.ratio == "output" ? 1 : 1 / static_cast<double>(n);
  for (double& c : s->coefficient) c += shared_slope * each;
}

void add_divergence(const SequenceInput& in, const PolicyOptions& o, double weight,
                    SequenceTerms* s) {
  for (size_t t = 0; t < in.logp.size(); ++t) {
    const double ratio = std::exp(in.logp[t] - in.behaviour[t]);
    const Term term = divergence_term(in.logp[t], in.ref[t], ratio, o);
    s->kl[t] = term.value;
    if (in.beta == 0 || (s->masked && o.mask_kl)) continue;
    s->objective[t] -= in.beta * term.value;
    s->coefficient[t] -= weight * in.beta * term.slope;
  }
}

}  // namespace

SequenceTerms sequence_terms(const SequenceInput& in, const PolicyCounts& counts,
                             const PolicyOptions& o) {
  check_input(in, o);
  const size_t n = in.logp.size();
  SequenceTerms s{.ratio = ratios(in, o),
                  .kl = std::vector<double>(n),
                  .objective = std::vector<double>(n),
                  .coefficient = std::vector<double>(n)};
  s.divergence = mean_difference(in.behaviour, in.logp);
  if (!in.prox.empty()) {
    s.mismatch = mean_difference(in.behaviour, in.prox);
    s.staleness = mean_difference(in.prox, in.logp);
  }
  if (in.left_out) return s;
  const double weight = token_weight(n, counts, o);
  add_surrogate(in, counts, o, weight, &s);
  if (o.kl != "none" && !in.ref.empty()) add_divergence(in, o, weight, &s);
  for (const double j : s.objective) s.total += weight * j;
  return s;
}

double quantile(std::vector<double> values, double q) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const double rank = std::ceil(q * static_cast<double>(values.size()));
  return values[static_cast<size_t>(std::max(rank - 1, 0.0))];
}

double resolve_opsm_delta(const PolicyOptions& o, std::span<const double> divergences) {
  const std::string& text = o.opsm_delta;
  if (text == "off") return kInfinity;
  const bool automatic = text.starts_with("auto:");
  const char *begin = text.data() + (automatic ? 5 : 0), *end = text.data() + text.size();
  double x = -1;
  const auto [p, ec] = std::from_chars(begin, end, x);
  if (ec != std::errc() || p != end || !(x >= 0) || (automatic && x > 1))
    throw Error(Code::kInvalidArgument,
                fmt::format("opsm_delta: expected off, a number >= 0 or auto:QUANTILE, found "
                            "\"{}\"",
                            text));
  if (!automatic) return x;
  if (divergences.empty())
    throw Error(Code::kInvalidArgument,
                "opsm_delta: expected divergences to calibrate on, found 0");
  return std::max(o.opsm_floor, quantile({divergences.begin(), divergences.end()}, x));
}

}  // namespace fathom
