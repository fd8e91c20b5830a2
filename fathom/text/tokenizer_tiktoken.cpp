// Reads tiktoken files (one base64 token and its rank a line), as Kimi and Moonlight publish them.
#include <fmt/core.h>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/base/json.h"
#include "fathom/text/tokenizer_builder.h"

namespace fathom {
namespace {

// The words of Kimi: Han runs; letters in two cases of capitals; digits by three; the rest as in
// GPT-4. The original says "upper case or caseless letter or mark, and not Han" with a class
// intersection, which PCRE2 lacks; the complement of a union says the same.
const char* const kKimiWords =
    R"(\p{Han}+)"
    R"(|[^\r\n\p{L}\p{N}]?[^\p{Ll}\p{N}\p{P}\p{S}\p{Z}\p{C}\p{Han}]*[^\p{Lu}\p{Lt}\p{N}\p{P}\p{S}\p{Z}\p{C}\p{Han}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|[^\r\n\p{L}\p{N}]?[^\p{Ll}\p{N}\p{P}\p{S}\p{Z}\p{C}\p{Han}]+[^\p{Lu}\p{Lt}\p{N}\p{P}\p{S}\p{Z}\p{C}\p{Han}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

int base64_value(char c) {
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  if (c == '+') return 62;
  if (c == '/') return 63;
  return -1;
}

bool decode_base64(std::string_view text, std::string& out) {
  if (text.empty() || text.size() % 4 != 0) return false;
  while (text.ends_with('=')) text.remove_suffix(1);
  unsigned bits = 0;
  int have = 0;
  for (const char c : text) {
    const int value = base64_value(c);
    if (value < 0) return false;
    bits = bits << 6 | static_cast<unsigned>(value);
    have += 6;
    if (have >= 8) {
      have -= 8;
      out += static_cast<char>(bits >> have & 0xFF);
    }
  }
  return true;
}

struct Ranked {
  std::string bytes;
  int64_t rank;
};

std::vector<Ranked> read_ranks(std::string_view text, const std::string& what) {
  std::vector<Ranked> out;
  size_t number = 0;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text = end == text.npos ? std::string_view{} : text.substr(end + 1);
    ++number;
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty()) continue;
    const size_t blank = line.find(' ');
    Ranked r{"", -1};
    bool good = blank != line.npos && decode_base64(line.substr(0, blank), r.bytes);
    if (good) {
      const std::string digits(line.substr(blank + 1));
      good = !digits.empty() && digits.size() <= 8 &&
             digits.find_first_not_of("0123456789") == std::string::npos;
      if (good) r.rank = std::stoll(digits);
    }
    if (!good)
      throw Error(
          Code::kInvalidArgument,
          fmt::format("{}:{}: expected a base64 token, a blank and its rank", what, number));
    out.push_back(std::move(r));
  }
  return out;
}

// tiktoken merges whenever the joined bytes are a token, at that token's rank: all ways to cut a
// token are merges.
std::vector<TokenizerBuilder::Merge> all_merges(const std::vector<Ranked>& ranks) {
  std::unordered_map<std::string_view, int64_t> rank_of;
  for (const Ranked& r : ranks) rank_of[r.bytes] = r.rank;
  std::vector<TokenizerBuilder::Merge> merges;
  for (const Ranked& r : ranks) {
    const std::string_view bytes = r.bytes;
    for (size_t cut = 1; cut < bytes.size(); ++cut) {
      const auto left = rank_of.find(bytes.substr(0, cut));
      if (left == rank_of.end()) continue;
      const auto right = rank_of.find(bytes.substr(cut));
      if (right == rank_of.end()) continue;
      merges.push_back({static_cast<int32_t>(left->second), static_cast<int32_t>(right->second),
                        static_cast<int32_t>(r.rank), static_cast<uint32_t>(r.rank)});
    }
  }
  return merges;
}

// Kimi reserves this many ids behind the ranks; those that the config does not name have a name by
// number.
constexpr int64_t kReservedTokens = 256;

void add_specials(const Json& config, int64_t first, TokenizerBuilder& builder) {
  std::vector<bool> named(kReservedTokens, false);
  if (const Json* list = config.find("added_tokens_decoder")) {
    for (const auto& [key, token] : list->members()) {
      if (key.empty() || key.size() > 8 || key.find_first_not_of("0123456789") != std::string::npos)
        throw Error(Code::kInvalidArgument,
                    fmt::format("added_tokens_decoder: expected ids as keys, found \"{}\"", key));
      const int64_t id = std::stoll(key);
      if (id > kMaxTokenId)
        throw Error(Code::kInvalidArgument, fmt::format("the token id {} is too large", id));
      const Json* special = token.find("special");
      builder.add_special({.id = static_cast<int32_t>(id),
                           .content = token.at("content").as_string(),
                           .special = !special || special->as_bool()});
      if (id >= first && id < first + kReservedTokens)
        named[static_cast<size_t>(id - first)] = true;
    }
  }
  for (int64_t i = 0; i < kReservedTokens; ++i) {
    if (!named[static_cast<size_t>(i)])
      builder.add_special({.id = static_cast<int32_t>(first + i),
                           .content = fmt::format("<|reserved_token_{}|>", first + i),
                           .special = true});
  }
}

}  // namespace

Tokenizer tiktoken_from_text(std::string_view ranks, std::string_view config,
                             const std::string& what) {
  const std::vector<Ranked> tokens = read_ranks(ranks, what);
  if (tokens.empty()) throw Error(Code::kInvalidArgument, what + ": the file has no tokens");
  TokenizerBuilder builder;
  int64_t last = 0;
  for (const Ranked& r : tokens) {
    builder.add_token(r.rank, r.bytes);
    last = std::max(last, r.rank);
  }
  try {
    add_specials(Json::parse(config, "tokenizer_config.json"), last + 1, builder);
  } catch (const Error& e) {
    throw Error(e.code(), what + ": " + e.message(), e.hint());
  }
  builder.set_merges(all_merges(tokens));
  builder.set_whole_words(TokenizerBuilder::WholeWords::kTakeAsToken);
  std::vector<PreTokenizer::Step> steps;
  steps.emplace_back(PreTokenizer::Split{Regex(oniguruma_to_pcre2(kKimiWords, what), what)});
  builder.set_pre_tokenizer(PreTokenizer(std::move(steps)));
  return builder.build();
}

Tokenizer load_tiktoken(const std::string& file) {
  const size_t slash = file.rfind('/');
  const std::string folder = slash == file.npos ? "." : file.substr(0, slash);
  const std::string config = folder + "/tokenizer_config.json";
  return tiktoken_from_text(read_file(file), file_exists(config) ? read_file(config) : "{}", file);
}

}  // namespace fathom
