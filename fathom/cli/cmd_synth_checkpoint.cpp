// fathom synth-checkpoint: random weights of any shape as a checkpoint folder.
#include <fmt/core.h>

#include <string>
#include <vector>

#include "fathom/base/file.h"
#include "fathom/cli/args.h"
#include "fathom/cli/byte_progress.h"
#include "fathom/cli/machine.h"
#include "fathom/cli/runtime.h"
#include "fathom/cli/shape.h"
#include "fathom/model/synthetic.h"
#include "fathom/model/tensor_names.h"
#include "fathom/text/bpe_trainer.h"
#include "fathom/text/chat_tokens.h"
#include "fathom/text/tokenizer.h"

namespace fathom {
namespace {

struct SynthOptions {
  std::string config, out, dtype = "bf16", tokenizer = "bytes";
  int64_t seed = 0, threads = 0;
  LayerCut cut;
  int64_t max_shard_bytes = kMaxShardBytes;

  void fields(OptionSet& o) {
    o.add("config", &config, "config.json, a folder with one, or a known shape: s15m, m120m, l1b");
    o.add("out", &out, "folder to write");
    o.add("dtype", &dtype, "f32, bf16, or fp8: e4m3 with a scale for each 128 x 128");
    o.add("seed", &seed, "of the random numbers");
    o.add("layers", &cut.layers, "layers of the main model; -1: as in the config");
    o.add("dense_layers", &cut.dense_layers, "of these, dense ones at the front; -1: as there");
    o.add("mtp_layers", &cut.mtp_layers, "multi-token prediction layers; -1: as there");
    o.add("tokenizer", &tokenizer,
          "tokenizer.json to put beside the weights; bytes: one token a byte and the chat's marks; "
          "none");
    o.add("max_shard_bytes", &max_shard_bytes, "size of a file, unless one tensor is larger");
    o.add("threads", &threads, "threads; 0: all cores");
  }
};

// The text of tokenizer.json, or nothing. Adapts the config's tokens to a tokenizer made here.
std::string tokenizer_text(const SynthOptions& o, ModelConfig& config) {
  if (o.tokenizer == "none") return "";
  if (o.tokenizer != "bytes") {
    const std::string text = read_file(o.tokenizer);
    const int32_t size = Tokenizer::from_json(text, o.tokenizer).vocab_size();
    if (size > config.vocab_size)
      throw Error(Code::kInvalidArgument,
                  fmt::format("{}: expected at most vocab_size = {} tokens, found {}", o.tokenizer,
                              config.vocab_size, size),
                  "choose another tokenizer or config");
    return text;
  }
  BpeTrainOptions options{.special_tokens = {}};
  for (const std::string_view s : kChatSpecialTokens) options.special_tokens.emplace_back(s);
  options.vocab_size = static_cast<int32_t>(options.special_tokens.size()) + 256;
  if (options.vocab_size > config.vocab_size) {
    fmt::print("no tokenizer: {} tokens are too few for bytes and marks\n", config.vocab_size);
    return "";
  }
  config.bos_token_id = 0;
  config.eos_token_id = {1};
  return BpeTrainer(options).train();
}

}  // namespace

int cmd_synth_checkpoint(Args args) {
  SynthOptions o;
  CommandLine line("synth-checkpoint", "write a checkpoint of any shape with random weights");
  o.fields(line.options());
  line.example("fathom synth-checkpoint --config m120m --out /tmp/m120m");
  line.example(
      "fathom synth-checkpoint --config tests/configs/deepseek-v3.2.json --layers 3 \\\n"
      "      --dense-layers 1 --mtp-layers 0 --dtype fp8 --out /tmp/v32");
  if (!line.parse(args)) return kExitOk;
  if (o.config.empty()) throw UsageError("expected --config, found none");
  if (o.out.empty()) throw UsageError("expected --out, found none");
  if (o.max_shard_bytes < 1)
    throw UsageError(
        fmt::format("--max-shard-bytes: expected at least 1, found {}", o.max_shard_bytes));
  const SyntheticForm form = [&] {
    try {
      return parse_synthetic_form(o.dtype);
    } catch (const Error& e) {
      throw UsageError("--dtype: " + e.message());
    }
  }();
  ModelConfig config = cut_layers(read_shape(o.config), o.cut);
  const std::string tokenizer = tokenizer_text(o, config);
  const ParameterCounts n = count_parameters(config);
  fmt::print("{}: {:.2f} M parameters, {:.2f} M active, {} + {} layers, {}\n", o.out,
             static_cast<double>(n.total) / 1e6, static_cast<double>(n.active) / 1e6,
             config.num_hidden_layers, config.num_nextn_predict_layers, o.dtype);
  std::fflush(stdout);
  Runtime runtime(Precision::kF32, o.threads);
  {
    ByteProgress progress("write");
    write_synthetic_checkpoint(o.out, config, form, static_cast<uint64_t>(o.seed),
                               o.max_shard_bytes, runtime.pool, &progress);
    fmt::print("{} written\n", human_bytes(static_cast<uint64_t>(progress.total_bytes())));
  }
  if (!tokenizer.empty()) write_file_atomic(o.out + "/tokenizer.json", tokenizer);
  return kExitOk;
}

}  // namespace fathom
