// Trains a byte-level BPE vocabulary and writes it as Hugging Face's tokenizer.json, with the
// pre-tokenizer chain of DeepSeek-V3. Sennrich et al. 2016, section 3.2, over bytes.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace fathom {

struct BpeTrainOptions {
  int32_t vocab_size = 1024;  // with special tokens and the 256 bytes; fewer if the text runs out
  std::vector<std::string> special_tokens = {};  // ids 0, 1, ... in this order
  int64_t min_frequency = 2;                     // pairs that are rarer are not merged
  bool individual_digits = false;  // each digit is a word; else groups of up to three, as in V3
};

// Collects words, then merges. The result is a function of the texts and the options: order of the
// texts and of equal counts does not matter (ties go to the smaller ids). One thread at a time.
class BpeTrainer {
 public:
  explicit BpeTrainer(
      BpeTrainOptions options);  // throws Error for a vocabulary too small for its fixed part
  ~BpeTrainer();
  BpeTrainer(BpeTrainer&&) noexcept;
  BpeTrainer& operator=(BpeTrainer&&) noexcept;

  void add(std::string_view text);  // throws Error unless valid UTF-8
  std::string train() const;        // the text of tokenizer.json

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fathom
