#include "fathom/train/objective.h"

#include "fathom/ops/basic.h"
#include "fathom/ops/loss.h"

namespace fathom {
namespace {

// Rows of sequence b whose next token is known: those the multi-token prediction layer runs on.
int64_t known_rows(const TrainBatch& batch, size_t b) {
  int64_t n = 0;
  for (int32_t t = batch.bounds[b];
       t < batch.bounds[b + 1] && batch.target[static_cast<size_t>(t)] >= 0; ++t)
    ++n;
  return n;
}

struct MtpRows {
  Step step;
  std::vector<int32_t> row;     // of the main model
  std::vector<int32_t> target;  // -1 where unknown
  std::vector<double> weight;
};

MtpRows mtp_rows(const TrainBatch& batch) {
  MtpRows m;
  for (size_t b = 0; b + 1 < batch.bounds.size(); ++b) {
    std::vector<int32_t> next;
    const int64_t n = known_rows(batch, b);
    for (int64_t i = 0; i < n; ++i) {
      const auto t = static_cast<size_t>(batch.bounds[b] + i);
      const bool last = i + 1 >= batch.bounds[b + 1] - batch.bounds[b];
      m.row.push_back(static_cast<int32_t>(t));
      next.push_back(batch.target[t]);
      m.target.push_back(last ? -1 : batch.target[t + 1]);
      m.weight.push_back(last ? 0 : batch.weight[t + 1]);
    }
    if (n > 0) m.step.add_sequence(next);
  }
  return m;
}

AttnForm form_of(const ObjectiveOptions& o) {
  if (o.form == "absorbed") return AttnForm::kAbsorbed;
  if (o.form == "naive") return AttnForm::kNaive;
  throw Error(Code::kInvalidArgument,
              fmt::format("form: expected absorbed or naive, found \"{}\"", o.form));
}

KeySelection selection_of(const ObjectiveOptions& o) {
  if (o.attention == "dense") return KeySelection::kDense;
  if (o.attention == "sparse") return KeySelection::kSparse;
  throw Error(Code::kInvalidArgument,
              fmt::format("attention: expected dense or sparse, found \"{}\"", o.attention));
}

// Fills the step's options that both the main model and the prediction layers follow.
void configure(Step* step, const ObjectiveOptions& o, int64_t all_rows, int64_t all_seqs) {
  step->form = form_of(o);
  step->selection = selection_of(o);
  step->indexer_mass_topk = o.indexer_mass_topk;
  if (all_rows > 0) step->indexer_kl_scale = o.indexer_kl_weight / static_cast<double>(all_rows);
  // The kernel averages over the part's sequences; scale so that parts add up to the mean over the
  // batch.
  if (all_seqs > 0)
    step->balance_weight = o.balance_weight * static_cast<double>(step->seqs.num_seq()) /
                           static_cast<double>(all_seqs);
}

double sum(const Tensor& t) {
  double s = 0;
  for (int64_t i = 0; i < t.view.numel(); ++i) s += get_element(t, i);
  return s;
}

void record_layer(const LayerOut& layer, const Step& step, int64_t all_rows, int64_t all_seqs,
                  LossReport* r) {
  const double seq_share =
      all_seqs ? static_cast<double>(step.seqs.num_seq()) / static_cast<double>(all_seqs) : 0;
  r->layer_balance.push_back(layer.balance * seq_share);
  r->balance += layer.balance * seq_share;
  r->layer_kl.push_back(layer.kl_T ? sum(layer.kl_T) / static_cast<double>(all_rows) : 0);
  r->layer_mass.push_back(layer.mass_T ? sum(layer.mass_T) / static_cast<double>(all_rows) : 0);
  std::vector<int64_t>& count = r->expert_count.emplace_back();
  if (layer.routing)
    for (size_t e = 0; e + 1 < layer.routing->offset.size(); ++e)
      count.push_back(layer.routing->offset[e + 1] - layer.routing->offset[e]);
}

std::vector<double> scaled(const std::vector<double>& weight, double factor) {
  std::vector<double> out = weight;
  for (double& w : out) w *= factor;
  return out;
}

}  // namespace

LossCounts count_losses(const TrainBatch& batch) {
  LossCounts c;
  c.rows = batch.num_rows();
  c.num_seq = static_cast<int64_t>(batch.bounds.size()) - 1;
  for (const double w : batch.weight) c.lm += w;
  for (size_t b = 0; b + 1 < batch.bounds.size(); ++b) {
    const int64_t n = known_rows(batch, b);
    c.mtp_rows += n;
    for (int64_t i = 1; i < n; ++i) c.mtp += batch.weight[static_cast<size_t>(batch.bounds[b] + i)];
  }
  return c;
}

double LossReport::mean_kl() const {
  double s = 0;
  int64_t n = 0;
  for (const double k : layer_kl) {
    s += k;
    n += k != 0;
  }
  return n ? s / static_cast<double>(n) : 0;
}

double LossReport::mean_mass() const {
  double s = 0;
  int64_t n = 0;
  for (const double m : layer_mass) {
    s += m;
    n += m != 0;
  }
  return n ? s / static_cast<double>(n) : 0;
}

void LossReport::add(const LossReport& part) {
  const auto merge = [](auto& into, const auto& from) {
    if (into.size() < from.size()) into.resize(from.size());
    for (size_t i = 0; i < from.size(); ++i) into[i] += from[i];
  };
  total += part.total;
  lm += part.lm;
  mtp += part.mtp;
  balance += part.balance;
  merge(layer_balance, part.layer_balance);
  merge(layer_kl, part.layer_kl);
  merge(layer_mass, part.layer_mass);
  if (expert_count.size() < part.expert_count.size()) expert_count.resize(part.expert_count.size());
  for (size_t l = 0; l < part.expert_count.size(); ++l)
    merge(expert_count[l], part.expert_count[l]);
}

LossReport run_objective(Ctx& ctx, const Model& model, const TrainBatch& part,
                         const LossCounts& counts, const ObjectiveOptions& o) {
  LossReport r;
  Step step;
  for (size_t b = 0; b + 1 < part.bounds.size(); ++b)
    step.add_sequence(
        {part.token.begin() + part.bounds[b], part.token.begin() + part.bounds[b + 1]});
  configure(&step, o, counts.rows, counts.num_seq);
  const StepOut out = forward(ctx, model, step);
  for (const LayerOut& layer : out.layers)
    record_layer(layer, step, counts.rows, counts.num_seq, &r);

  if (counts.lm > 0) {
    const HeadLoss lm = head_loss(ctx, out.hidden_TD, model.weights.lm_head, part.target,
                                  scaled(part.weight, o.lm_weight / counts.lm));
    for (size_t t = 0; t < lm.nll.size(); ++t) r.lm += part.weight[t] * lm.nll[t] / counts.lm;
  }
  MtpRows m;
  if (!model.weights.mtp.empty() && (o.mtp_weight != 0 || o.indexer_kl_weight != 0 || ctx.probe)) {
    m = mtp_rows(part);
    configure(&m.step, o, counts.mtp_rows, counts.num_seq);
    const Value rows_TD =
        select_rows(ctx, out.hidden_TD, m.row.data(), static_cast<int64_t>(m.row.size()));
    std::vector<LayerOut> layers;
    const Value hidden_TD = mtp_forward(ctx, model, 0, rows_TD, m.step, &layers);
    record_layer(layers[0], m.step, counts.mtp_rows, counts.num_seq, &r);
    if (counts.mtp > 0) {
      const HeadLoss mtp = head_loss(ctx, hidden_TD, model.weights.lm_head, m.target,
                                     scaled(m.weight, o.mtp_weight / counts.mtp));
      for (size_t t = 0; t < mtp.nll.size(); ++t) r.mtp += m.weight[t] * mtp.nll[t] / counts.mtp;
    }
  }
  double kl = 0;
  for (const double k : r.layer_kl) kl += k;
  r.total = o.lm_weight * r.lm + o.mtp_weight * r.mtp + o.balance_weight * r.balance +
            o.indexer_kl_weight * kl;
  if (ctx.tape) ctx.tape->backward();
  return r;
}

TrainBatch take_part(const TrainBatch& batch, int64_t max_rows, size_t* first) {
  TrainBatch part;
  part.bounds.push_back(0);
  const int32_t begin = batch.bounds[*first];
  int32_t end = begin;
  for (; *first + 1 < batch.bounds.size(); ++*first) {
    const int32_t next = batch.bounds[*first + 1];
    if (end > begin && next - begin > max_rows) break;
    end = next;
    part.bounds.push_back(end - begin);
  }
  part.token.assign(batch.token.begin() + begin, batch.token.begin() + end);
  part.target.assign(batch.target.begin() + begin, batch.target.begin() + end);
  part.weight.assign(batch.weight.begin() + begin, batch.weight.begin() + end);
  return part;
}

}  // namespace fathom
