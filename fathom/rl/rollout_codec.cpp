#include "fathom/rl/rollout_codec.h"

#include <fmt/core.h>

#include "fathom/base/bytes.h"
#include "fathom/base/file.h"
#include "fathom/base/rng.h"

namespace fathom {
namespace {

constexpr uint64_t kMagic = 0x31'54'55'4F'4C'4C'4F'52;  // "ROLLOUT1"

std::string finish(ByteWriter& out) {
  out.number(hash_bytes(out.bytes()));
  return out.take();
}

ByteReader reader(std::string_view bytes, const std::string& what) {
  return {bytes, what, "a rollout record"};
}

// Versions change once in a while, so they are stored as (length, version) pairs.
std::vector<int32_t> run_lengths(const std::vector<int32_t>& values) {
  std::vector<int32_t> runs;
  for (const int32_t v : values) {
    if (runs.empty() || runs.back() != v) {
      runs.push_back(0);
      runs.push_back(v);
    }
    ++runs[runs.size() - 2];
  }
  return runs;
}

std::vector<int32_t> expand_runs(const std::vector<int32_t>& runs, size_t size,
                                 const ByteReader& in) {
  std::vector<int32_t> values;
  for (size_t i = 0; i + 1 < runs.size(); i += 2) {
    const auto n = static_cast<size_t>(runs[i]);
    if (runs[i] < 1 || n > size - values.size()) in.damaged("runs longer than the answer");
    values.insert(values.end(), n, runs[i + 1]);
  }
  if (values.size() != size) in.damaged("runs shorter than the answer");
  return values;
}

SupportRows read_support(ByteReader& in) {
  SupportRows support{.offset = in.list<int64_t>(), .id = in.list<int32_t>()};
  if (support.offset.empty() || support.offset[0] != 0) in.damaged("support without a first row");
  for (size_t t = 1; t < support.offset.size(); ++t)
    if (support.offset[t] < support.offset[t - 1]) in.damaged("support with a negative row");
  return support;
}

}  // namespace

std::string encode_rollout(const Rollout& r) {
  check_rollout(r);
  ByteWriter out;
  for (const int64_t n : {static_cast<int64_t>(kMagic), r.step, r.group, r.index, r.prompt_len})
    out.number(n);
  out.number(static_cast<uint8_t>(r.stop));
  const SamplingRecord& s = r.sampling;
  for (const double x : {s.temperature, s.top_p, s.min_p}) out.number(x);
  out.number(s.top_k);
  out.number(s.seed);
  out.number(r.reward);
  for (const std::string* text : {&r.domain, &r.problem, &r.verdict}) out.text(*text);
  out.number(uint64_t{r.rewards.size()});
  for (const RewardPart& part : r.rewards) {
    out.text(part.name);
    out.number(part.value);
    out.number(part.weight);
  }
  out.list(r.tokens);
  out.list(r.behaviour_logp);
  out.list(r.sampled);
  out.list(run_lengths(r.weight_version));
  out.list(r.support.offset);
  out.list(r.support.id);
  out.list(r.experts.layers);
  out.number(r.experts.num_experts_per_tok);
  out.list(r.experts.expert);
  out.list(r.selection.layers);
  out.list(r.selection.fingerprint);
  return finish(out);
}

Rollout decode_rollout(std::string_view bytes, const std::string& what) {
  constexpr size_t kSum = sizeof(uint64_t);
  const std::string_view body = bytes.substr(0, bytes.size() - std::min(bytes.size(), kSum));
  ByteReader in = reader(body, what);
  if (body.size() < kSum || in.number<uint64_t>() != kMagic) in.damaged("other bytes");
  if (reader(bytes.substr(body.size()), what).number<uint64_t>() != hash_bytes(body))
    in.damaged("a checksum that differs");
  Rollout r;
  for (int64_t* n : {&r.step, &r.group, &r.index, &r.prompt_len}) *n = in.number<int64_t>();
  const auto stop = in.number<uint8_t>();
  if (stop >= kNumStopReasons) in.damaged("an unknown stop reason");
  r.stop = static_cast<StopReason>(stop);
  for (double* x : {&r.sampling.temperature, &r.sampling.top_p, &r.sampling.min_p})
    *x = in.number<double>();
  r.sampling.top_k = in.number<int64_t>();
  r.sampling.seed = in.number<uint64_t>();
  r.reward = in.number<double>();
  for (std::string* text : {&r.domain, &r.problem, &r.verdict}) *text = in.text();
  for (auto left = in.number<uint64_t>(); left > 0; --left) {
    RewardPart part{.name = in.text()};
    part.value = in.number<double>();
    part.weight = in.number<double>();
    r.rewards.push_back(std::move(part));
  }
  r.tokens = in.list<int32_t>();
  r.behaviour_logp = in.list<float>();
  r.sampled = in.list<uint8_t>();
  r.weight_version = expand_runs(in.list<int32_t>(), r.sampled.size(), in);
  r.support = read_support(in);
  r.experts.layers = in.list<int64_t>();
  r.experts.num_experts_per_tok = in.number<int64_t>();
  if (r.experts.num_experts_per_tok < 0 || r.experts.num_experts_per_tok > UINT16_MAX)
    in.damaged(fmt::format("{} experts for a token", r.experts.num_experts_per_tok));
  r.experts.expert = in.list<uint16_t>();
  r.selection.layers = in.list<int64_t>();
  r.selection.fingerprint = in.list<uint32_t>();
  if (!in.done()) in.damaged("more bytes than a record has");
  check_rollout(r);
  return r;
}

void write_rollout_file(const std::string& path, std::span<const Rollout> rollouts) {
  AtomicWriter file(path);
  for (const Rollout& r : rollouts) {
    const std::string bytes = encode_rollout(r);
    const uint64_t size_bytes = bytes.size();
    file.write(&size_bytes, sizeof size_bytes);
    file.write(bytes.data(), bytes.size());
  }
  file.commit();
}

std::vector<Rollout> read_rollout_file(const std::string& path) {
  const std::string bytes = read_file(path);
  std::vector<Rollout> out;
  ByteReader in = reader(bytes, path);
  while (!in.done()) out.push_back(decode_rollout(in.text(), path));
  return out;
}

}  // namespace fathom
