// fathom data WHAT: from texts to token shards: generated corpora, a tokenizer, packing.
#include <fmt/core.h>

#include <string>
#include <vector>

#include "fathom/base/file.h"
#include "fathom/cli/args.h"
#include "fathom/cli/runtime.h"
#include "fathom/rl/rollout_store.h"
#include "fathom/rl/sft_records.h"
#include "fathom/task/synth/corpus.h"
#include "fathom/task/synth/marks.h"
#include "fathom/text/bpe_trainer.h"
#include "fathom/text/chat_tokens.h"
#include "fathom/train/data/packer.h"
#include "fathom/train/data/records.h"

namespace fathom {
namespace {

double mega(uint64_t n) { return static_cast<double>(n) / 1e6; }

int data_corpus(Args args) {
  CorpusOptions options;
  CommandLine line("data corpus",
                   "write generated problems as documents, chats and a held-out set");
  options.fields(line.options());
  line.example("fathom data corpus --output corpus --families addition:1-3,sort_letters:1-4");
  if (!line.parse(args)) return kExitOk;
  if (options.output.empty()) throw UsageError("--output: expected a folder, found nothing");
  const CorpusCounts c = make_corpus(options);
  fmt::print("{}: {} documents ({:.2f} MB), {} chats ({:.2f} MB), {} held-out problems\n",
             options.output, c.documents, mega(c.pretrain_bytes), c.chat_records, mega(c.sft_bytes),
             c.held_out_problems);
  return kExitOk;
}

struct TokenizerOptions {
  std::vector<std::string> inputs;
  std::string output;
  int64_t vocab_size = 1024, min_frequency = 2, max_bytes = 0;
  bool individual_digits = false;

  void fields(OptionSet& o) {
    o.add("inputs", &inputs, ".jsonl files of documents or chats; any other file is one document");
    o.add("output", &output, "the tokenizer.json to write");
    o.add("vocab_size", &vocab_size, "tokens, with the control tokens and the 256 bytes");
    o.add("min_frequency", &min_frequency, "pairs that are rarer are not merged");
    o.add("max_bytes", &max_bytes, "of text to look at, from the start of the inputs; 0: all");
    o.add("individual_digits", &individual_digits, "each digit is a token; else up to three");
  }
};

// Adds the texts of a record; returns their bytes.
int64_t add_record(const Record& record, BpeTrainer& trainer) {
  size_t bytes = 0;
  const auto add = [&](const std::string& text) {
    trainer.add(text);
    bytes += text.size();
  };
  if (!record.is_chat()) add(record.text);
  for (const ChatTurn& turn : record.chat) {
    add(turn.content);
    if (turn.has_thinking) add(turn.thinking);
  }
  return static_cast<int64_t>(bytes);
}

int data_tokenizer(Args args) {
  TokenizerOptions options;
  CommandLine line("data tokenizer",
                   "train a byte-level BPE vocabulary with the chat tokens of V3");
  options.fields(line.options());
  line.example("fathom data tokenizer --inputs corpus/pretrain.jsonl --output tokenizer.json");
  if (!line.parse(args)) return kExitOk;
  if (options.inputs.empty()) throw UsageError("--inputs: expected files, found nothing");
  if (options.output.empty()) throw UsageError("--output: expected a file, found nothing");
  constexpr int64_t kLargestVocabulary = 1 << 22;
  if (options.vocab_size < 1 || options.vocab_size > kLargestVocabulary)
    throw UsageError(fmt::format("--vocab-size: expected 1 to {}, found {}", kLargestVocabulary,
                                 options.vocab_size));
  BpeTrainOptions bpe{.vocab_size = static_cast<int32_t>(options.vocab_size),
                      .min_frequency = options.min_frequency,
                      .individual_digits = options.individual_digits};
  bpe.special_tokens.assign(kChatSpecialTokens.begin(), kChatSpecialTokens.end());
  BpeTrainer trainer(bpe);
  int64_t bytes = 0;
  for (const std::string& path : options.inputs) {
    RecordReader reader(path);
    Record record;
    while ((options.max_bytes <= 0 || bytes < options.max_bytes) && reader.next(record))
      bytes += add_record(record, trainer);
  }
  write_file_atomic(options.output, trainer.train());
  fmt::print("{}: {} tokens from {:.2f} MB of text\n", options.output,
             Tokenizer::load(options.output).vocab_size(), mega(static_cast<uint64_t>(bytes)));
  return kExitOk;
}

int data_pack(Args args) {
  PackOptions options;
  std::string tokenizer;
  int64_t threads = 0;
  CommandLine line("data pack", "encode documents and chats into token shards");
  options.fields(line.options());
  line.options().add("tokenizer", &tokenizer, "tokenizer.json, or the folder of a checkpoint");
  line.options().add("threads", &threads, "threads; 0: all cores");
  line.example(
      "fathom data pack --inputs corpus/sft.jsonl --tokenizer tokenizer.json --output sft");
  if (!line.parse(args)) return kExitOk;
  if (options.inputs.empty()) throw UsageError("--inputs: expected files, found nothing");
  if (options.output.empty()) throw UsageError("--output: expected a folder, found nothing");
  if (tokenizer.empty()) throw UsageError("--tokenizer: expected a file or folder, found nothing");
  Runtime runtime(Precision::kF32, threads);
  const PackCounts c = pack(options, Tokenizer::load(tokenizer), runtime.pool);
  fmt::print(
      "{}: {} documents ({:.2f} M tokens), {} chats ({:.2f} M tokens, {:.2f} M with a loss)\n",
      options.output, c.documents, mega(c.document_tokens), c.chats, mega(c.chat_tokens),
      mega(c.chat_loss_tokens));
  return kExitOk;
}

struct FromRolloutsOptions {
  std::vector<std::string> runs;
  std::string output;
  int64_t first_step = 0, last_step = 0;
  KeepOptions keep;

  void fields(OptionSet& o) {
    o.add("runs", &runs, "folders of runs with stored rollouts and a tokenizer.json");
    o.add("output", &output, "the .jsonl file to write");
    o.add("first_step", &first_step, "of each run that is looked at");
    o.add("last_step", &last_step, "of each run that is looked at; 0: its last");
    keep.fields(o);
  }
};

// Rejection sampling from what a run has stored; of several runs: what specialists teach.
int data_from_rollouts(Args args) {
  FromRolloutsOptions options;
  CommandLine line("data from-rollouts", "good answers of runs as chats for fine-tuning");
  options.fields(line.options());
  line.example("fathom data from-rollouts --runs runs/r1_zero --first-step 40 --output kept.jsonl");
  if (!line.parse(args)) return kExitOk;
  if (options.runs.empty()) throw UsageError("--runs: expected folders, found nothing");
  if (options.output.empty()) throw UsageError("--output: expected a file, found nothing");
  std::string text;
  int64_t kept = 0, seen = 0;
  for (const std::string& run : options.runs) {
    const Tokenizer tokenizer = Tokenizer::load(run + "/tokenizer.json");
    const RolloutStore store(run, RolloutStore::Mode::kRead);
    RejectionFilter filter(options.keep);
    for (const int64_t step : store.steps()) {
      if (step < options.first_step || (options.last_step > 0 && step > options.last_step))
        continue;
      for (const Rollout& r : store.read_step(step)) {
        ++seen;
        const std::optional<std::string> record = filter.offer(tokenizer, r);
        if (!record) continue;
        text += *record + '\n';
        ++kept;
      }
    }
  }
  if (kept == 0) {
    throw Error(Code::kNotFound,
                fmt::format("expected answers with a reward of {}, found none in {} rollouts",
                            options.keep.keep_reward, seen),
                "lower --keep-reward or look at other steps");
  }
  write_file_atomic(options.output, text);
  fmt::print("{}: {} of {} answers\n", options.output, kept, seen);
  return kExitOk;
}

int data_marks(Args args) {
  MarkOptions options;
  CommandLine line("data marks",
                   "answers with an exact checker's marks for a judge, and tasks with rubrics");
  options.fields(line.options());
  line.example("fathom data marks --output marks --family sort_letters:1-3");
  if (!line.parse(args)) return kExitOk;
  if (options.output.empty()) throw UsageError("--output: expected a folder, found nothing");
  make_marks(options);
  fmt::print("{}: {} marked answers, {} tasks, {} held-out tasks\n", options.output,
             options.records, options.tasks, options.held_out_tasks);
  return kExitOk;
}

constexpr Command kParts[] = {
    {"corpus", "generated problems with worked thinking", data_corpus},
    {"from-rollouts", "good answers of runs as chats for fine-tuning", data_from_rollouts},
    {"marks", "marked answers for a judge, and tasks with rubrics", data_marks},
    {"pack", "texts to token shards", data_pack},
    {"tokenizer", "a byte-level BPE vocabulary from texts", data_tokenizer},
};

}  // namespace

int cmd_data(Args args) { return run_part("data", "prepare training data", kParts, args); }

}  // namespace fathom
