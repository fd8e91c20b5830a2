// Reads Hugging Face's tokenizer.json.
#include <fmt/core.h>

#include <array>
#include <functional>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/base/json.h"
#include "fathom/text/tokenizer_builder.h"
#include "fathom/text/utf8.h"

namespace fathom {
namespace {

bool maps_to_itself(unsigned b) {
  return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
}

std::array<char32_t, 256> make_alphabet() {
  std::array<char32_t, 256> table{};
  char32_t next = 0x100;
  for (unsigned b = 0; b < 256; ++b) table[b] = maps_to_itself(b) ? b : next++;
  return table;
}

[[noreturn]] void refuse(const std::string& message) {
  throw Error(Code::kInvalidArgument, message,
              "the engine reads byte-level BPE files as DeepSeek, GLM and Kimi publish them");
}

// Runs `read` and puts the file and the field in front of what went wrong.
void in_field(const std::string& what, const char* field, const std::function<void()>& read) {
  try {
    read();
  } catch (const InternalError&) {
    throw;
  } catch (const Error& e) {
    throw Error(e.code(), fmt::format("{}: {}: {}", what, field, e.message()), e.hint());
  }
}

void check_empty(const Json& json, const char* key) {
  const Json* value = json.find(key);
  if (!value || value->is_null()) return;
  if (value->is_string() && value->as_string().empty()) return;
  if (value->is_bool() && !value->as_bool()) return;
  if (value->is_number() && value->as_double() == 0) return;
  refuse(fmt::format("\"{}\" is set to {}, which is not supported", key, value->dump()));
}

bool is_identity_normalizer(const Json& json) {
  if (json.is_null()) return true;
  if (json.at("type").as_string() != "Sequence") return false;
  for (const Json& item : json.at("normalizers").items())
    if (!is_identity_normalizer(item)) return false;
  return true;
}

bool is_byte_level_decoder(const Json& json) {
  const std::string& type = json.at("type").as_string();
  if (type == "ByteLevel") return true;
  if (type != "Sequence" || json.at("decoders").items().empty()) return false;
  for (const Json& item : json.at("decoders").items())
    if (!is_byte_level_decoder(item)) return false;
  return true;
}

using Vocab = std::unordered_map<std::string_view, int32_t>;

Vocab read_vocab(const Json& model, TokenizerBuilder& builder) {
  Vocab vocab;
  const auto& members = model.at("vocab").members();
  vocab.reserve(members.size());
  for (const auto& [text, id] : members) {
    std::string bytes;
    // What the alphabet cannot write is a token for its own characters (an added token that is in
    // the vocabulary).
    if (!alphabet_to_bytes(text, bytes)) bytes = text;
    builder.add_token(id.as_int(), std::move(bytes));
    vocab[text] = static_cast<int32_t>(id.as_int());
  }
  if (vocab.empty()) refuse("the vocabulary is empty");
  return vocab;
}

std::vector<TokenizerBuilder::Merge> read_merges(const Json& model, const Vocab& vocab) {
  std::vector<TokenizerBuilder::Merge> merges;
  std::string joined;
  const auto id_of = [&](std::string_view text, size_t rank) {
    const auto it = vocab.find(text);
    if (it == vocab.end())
      refuse(fmt::format("merge {} names \"{}\", which is not in the vocabulary", rank, text));
    return it->second;
  };
  for (const Json& item : model.at("merges").items()) {
    const size_t rank = merges.size();
    std::string_view left, right;
    if (item.is_array()) {
      if (item.items().size() != 2) refuse(fmt::format("merge {} is not a pair", rank));
      left = item.items()[0].as_string();
      right = item.items()[1].as_string();
    } else {
      const std::string_view text = item.as_string();
      const size_t blank = text.find(' ');
      if (blank == text.npos || text.find(' ', blank + 1) != text.npos)
        refuse(fmt::format("merge {} is \"{}\", expected two tokens and a blank", rank, text));
      left = text.substr(0, blank);
      right = text.substr(blank + 1);
    }
    joined.assign(left).append(right);
    merges.push_back(
        {id_of(left, rank), id_of(right, rank), id_of(joined, rank), static_cast<uint32_t>(rank)});
  }
  return merges;
}

void read_model(const Json& model, TokenizerBuilder& builder) {
  const Json* type = model.find("type");
  if (type && type->as_string() != "BPE")
    refuse(fmt::format("expected a model of type BPE, found \"{}\"", type->as_string()));
  for (const char* key :
       {"dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"})
    check_empty(model, key);
  const Vocab vocab = read_vocab(model, builder);
  builder.set_merges(read_merges(model, vocab));
  const Json* ignore = model.find("ignore_merges");
  if (ignore && ignore->as_bool())
    builder.set_whole_words(TokenizerBuilder::WholeWords::kTakeAsToken);
}

bool flag(const Json& json, const char* key) {
  const Json* value = json.find(key);
  return value && value->as_bool();
}

void read_added(const Json& list, TokenizerBuilder& builder) {
  if (list.is_null()) return;
  for (const Json& item : list.items()) {
    const int64_t id = item.at("id").as_int();
    const std::string& content = item.at("content").as_string();
    if (content.empty()) refuse(fmt::format("the added token {} is empty", id));
    if (id < 0 || id > kMaxTokenId) refuse(fmt::format("the added token id {} is not valid", id));
    if (flag(item, "single_word"))
      refuse(fmt::format("the added token \"{}\" has single_word set", content));
    builder.add_special({.id = static_cast<int32_t>(id),
                         .content = content,
                         .special = flag(item, "special"),
                         .lstrip = flag(item, "lstrip"),
                         .rstrip = flag(item, "rstrip"),
                         .normalized = flag(item, "normalized")});
  }
}

}  // namespace

char32_t byte_to_alphabet(unsigned char byte) {
  static const std::array<char32_t, 256> kAlphabet = make_alphabet();
  return kAlphabet[byte];
}

bool alphabet_to_bytes(std::string_view text, std::string& bytes) {
  static const std::array<int16_t, 0x180> kBytes = [] {
    std::array<int16_t, 0x180> table;
    table.fill(-1);
    for (unsigned b = 0; b < 256; ++b)
      table[byte_to_alphabet(static_cast<unsigned char>(b))] = static_cast<int16_t>(b);
    return table;
  }();
  for (size_t at = 0; at < text.size();) {
    const char32_t code = utf8_next_unchecked(text, at);
    if (code >= kBytes.size() || kBytes[code] < 0) return false;
    bytes += static_cast<char>(kBytes[code]);
  }
  return true;
}

Tokenizer Tokenizer::from_json(std::string_view text, const std::string& what) {
  const Json json = Json::parse(text, what);
  const Json null;
  const auto member = [&](const char* key) -> const Json& {
    const Json* value = json.find(key);
    return value ? *value : null;
  };
  TokenizerBuilder builder;
  in_field(what, "normalizer", [&] {
    if (!is_identity_normalizer(member("normalizer")))
      refuse(fmt::format("expected none, found {}", member("normalizer").dump()));
  });
  in_field(what, "decoder", [&] {
    if (!is_byte_level_decoder(member("decoder"))) refuse("expected ByteLevel");
  });
  builder.set_pre_tokenizer(PreTokenizer::from_json(member("pre_tokenizer"), what));
  in_field(what, "model", [&] { read_model(json.at("model"), builder); });
  in_field(what, "added_tokens", [&] { read_added(member("added_tokens"), builder); });
  return builder.build();
}

Tokenizer Tokenizer::load(const std::string& folder_or_file) {
  const auto json = [](const std::string& file) { return from_json(read_file(file), file); };
  if (!folder_exists(folder_or_file)) {
    if (folder_or_file.ends_with(".model") || folder_or_file.ends_with(".tiktoken"))
      return load_tiktoken(folder_or_file);
    return json(folder_or_file);
  }
  const std::string hf = folder_or_file + "/tokenizer.json";
  if (file_exists(hf)) return json(hf);
  const std::string tiktoken = folder_or_file + "/tiktoken.model";
  if (file_exists(tiktoken)) return load_tiktoken(tiktoken);
  throw Error(Code::kNotFound,
              fmt::format("expected tokenizer.json or tiktoken.model in {}", folder_or_file),
              "copy the tokenizer files of the checkpoint into the folder");
}

}  // namespace fathom
