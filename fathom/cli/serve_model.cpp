#include "fathom/cli/serve_model.h"

#include <fmt/core.h>

#include <chrono>
#include <map>
#include <optional>

#include "fathom/base/file.h"
#include "fathom/cli/args.h"
#include "fathom/cli/byte_progress.h"
#include "fathom/cli/machine.h"
#include "fathom/model/checkpoint_source.h"
#include "fathom/model/expert_cache.h"
#include "fathom/model/memory_plan.h"
#include "fathom/model/model_costs.h"

namespace fathom {
namespace {

constexpr double kQuiet_s = 1;  // loading that takes less shows nothing
constexpr double kUseOfFree = 0.8;
constexpr int64_t kProgramBytes = int64_t{96} << 20;

class LoadMeter final : public WorkProgress {
 public:
  void put(int64_t done_bytes, int64_t total_bytes) override {
    const double passed_s =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
    if (passed_s < kQuiet_s) return;
    if (!bar_) bar_.emplace("load");
    bar_->put(done_bytes, total_bytes);
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::optional<ByteProgress> bar_;
};

int64_t stored_bytes(const std::string& folder) {
  int64_t sum = 0;
  for (const std::string& name : list_folder(folder))
    if (name.ends_with(".safetensors")) sum += static_cast<int64_t>(file_size(folder + "/" + name));
  return sum;
}

// No limit unless the files say that there must be one.
int64_t limit_of(const ServeOptions& o, const std::string& folder, int64_t reserved_bytes) {
  if (!o.memory.empty()) {
    try {
      return parse_bytes(o.memory);
    } catch (const Error& e) {
      throw UsageError("--memory: " + e.message());
    }
  }
  const auto free = static_cast<double>(inspect_machine().available_bytes) * kUseOfFree;
  const auto needed = static_cast<double>(stored_bytes(folder) + reserved_bytes);
  return free == 0 || needed < free ? 0 : static_cast<int64_t>(free);
}

// A line of a file in /proc that holds kB.
int64_t proc_bytes(const std::string& path, const std::string& name) {
  const std::string text = read_file(path);
  const size_t at = text.find(name + ":");
  return at == std::string::npos ? 0 : std::atoll(text.c_str() + at + name.size() + 1) * 1024;
}

// "self_attn.q_b_proj" of "model.layers.3.self_attn.q_b_proj.weight": numbers of layers and experts
// left out.
std::string class_of(const std::string& name) {
  std::string out;
  size_t begin = 0;
  for (size_t end = name.find('.'); end != std::string::npos; end = name.find('.', begin)) {
    const std::string word = name.substr(begin, end - begin);
    begin = end + 1;
    const bool number = word.find_first_not_of("0123456789") == std::string::npos;
    if (word != "model" && word != "layers" && !number) out += (out.empty() ? "" : ".") + word;
  }
  return out;
}

}  // namespace

Quant parse_quant_option(const std::string& text) {
  try {
    return parse_quant(text);
  } catch (const Error& e) {
    throw UsageError("--quant: " + e.message());
  }
}

CacheForm parse_cache_option(const std::string& text) {
  try {
    return parse_cache_form(text);
  } catch (const Error& e) {
    throw UsageError("--cache: " + e.message());
  }
}

void ServeOptions::fields(OptionSet& o) {
  o.add("quant", &quant,
        "q8 or q4: weights in integer codes with a scale for each 64, made at load");
  o.add("cache", &cache,
        "key cache: f32, bf16, fp8 (e4m3 with scales), int8 (bf16, the indexer's keys in codes) or "
        "int8-latent (latents in codes too)");
  o.add("memory", &memory,
        "limit for weights and key cache, like 8G: experts that do not fit are read when needed");
  o.add("uncached", &uncached, "keep what is read out of the system's page cache as well");
  o.add("packed", &packed,
        "store the weights beside the checkpoint as kernels read them: later loads map that file");
}

Model load_to_serve(const Ctx& ctx, const std::string& folder, const ServeOptions& options,
                    const ServeSize& size) {
  LoadMeter meter;
  LoadOptions o{.drop_page_cache = options.uncached,
                .quant = parse_quant_option(options.quant),
                .progress = &meter};
  if (folder_exists(folder) && file_exists(folder + "/config.json")) {
    const ModelConfig config = read_config(folder + "/config.json");
    o.reserved_bytes = kProgramBytes +
                       size.num_pages * kPageTokens *
                           cache_bytes_per_token(config, parse_cache_option(options.cache)) +
                       activation_bytes(config, size.num_rows, size.num_sampled);
    o.memory_bytes = limit_of(options, folder, o.reserved_bytes);
    // Experts take the free memory; a page cache beside them would only be turned over.
    o.drop_page_cache |= options.memory.empty() && o.memory_bytes > 0;
  }
  Model model = load_model(ctx, folder, WeightUse::kServe, o);
  fmt::print(stderr, "{}", quant_text(model.weights.quant_losses));
  if (options.packed) {
    try {
      save_packed_weights(ctx, folder, model, o);
    } catch (const Error& e) {
      fmt::print(stderr, "warning: {}: later loads take as long\n", e.message());
    }
  }
  if (options.memory.empty() && model.weights.expert_cache)
    fmt::print(stderr, "larger than free memory: {}; the others are read when needed\n",
               plan_text(model));
  return model;
}

std::string quant_text(const std::vector<QuantLoss>& losses) {
  struct Class {
    Quant quant = Quant::kNone;
    int64_t number = 0;
    QuantError error;
    const QuantLoss* worst = nullptr;
  };
  std::map<std::string, Class> classes;
  const QuantLoss* worst = nullptr;
  for (const QuantLoss& loss : losses) {
    Class& c = classes[class_of(loss.name)];
    c.quant = loss.quant;
    ++c.number;
    c.error += loss.error;
    if (!worst || loss.error.relative() > worst->error.relative()) worst = &loss;
    if (!c.worst || loss.error.relative() > c.worst->error.relative()) c.worst = &loss;
  }
  if (!worst) return "";
  std::string out = "weights in codes: relative error (root of the mean square), worst tensor\n";
  for (const auto& [name, c] : classes)
    out += fmt::format("  {:<34} {} {:>6} {:>7.3f} % {:>7.3f} %\n", name, quant_name(c.quant),
                       c.number, 100 * c.error.relative(), 100 * c.worst->error.relative());
  return out +
         fmt::format("  worst of all: {}, {:.3f} %\n", worst->name, 100 * worst->error.relative());
}

std::string plan_text(const Model& model) {
  const MemoryPlan& p = model.weights.plan;
  return fmt::format(
      "{} of weights that every token uses, {} of key cache and activations, {} of {} experts "
      "of {}",
      bytes_text(p.resident_bytes), bytes_text(p.reserved_bytes), p.num_slots, p.num_experts,
      bytes_text(p.slot_bytes));
}

std::string stream_text(const ExpertStats& s, size_t num_tokens, double seconds) {
  if (num_tokens == 0) return "";
  const auto n = static_cast<double>(num_tokens);
  return fmt::format(
      "{} experts used, {:.1f} % of them in memory, {} fetched early, {} read, {} per token, "
      "{:.0f} % of the time waiting, {:.3f} tok/s",
      s.num_used, 100 * s.hit_rate(), s.num_guessed, bytes_text(s.bytes_read),
      bytes_text(static_cast<int64_t>(static_cast<double>(s.bytes_read) / n)),
      100 * s.wait_s / seconds, n / seconds);
}

std::string process_text() {
  const char* const status = "/proc/self/status";
  return fmt::format(
      "process {} at most, {} now: {} its own, {} of files",
      bytes_text(proc_bytes(status, "VmHWM")), bytes_text(proc_bytes(status, "VmRSS")),
      bytes_text(proc_bytes(status, "RssAnon")), bytes_text(proc_bytes(status, "RssFile")));
}

}  // namespace fathom
