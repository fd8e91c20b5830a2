// fathom tokenize DIR: text to tokens and back.
#include <fmt/core.h>

#include <iostream>
#include <iterator>
#include <string>
#include <vector>

#include "fathom/base/file.h"
#include "fathom/base/json.h"
#include "fathom/cli/args.h"
#include "fathom/text/tokenizer.h"
#include "fathom/text/utf8.h"

namespace fathom {
namespace {

// The bytes of a token as a JSON string, with U+FFFD for parts of characters.
std::string piece_text(std::string_view bytes) { return json_quote(utf8_lossy(bytes)); }

Json tokens_json(const Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  Json out = Json::array();
  for (const int32_t id : ids)
    out.push(Json::object(
        {{"id", Json::number(int64_t{id})},
         {"text", Json::string(utf8_lossy(tokenizer.token_bytes(id)))},
         {"num_bytes", Json::number(static_cast<int64_t>(tokenizer.token_bytes(id).size()))},
         {"added", Json::boolean(tokenizer.is_added(id))}}));
  return out;
}

}  // namespace

int cmd_tokenize(Args args) {
  std::string folder, text, file;
  bool ids_only = false, json = false, parse_added = false;
  CommandLine line("tokenize", "cut a text into the tokens of a model, and join them again");
  line.positional("DIR", &folder, "folder with tokenizer.json or tiktoken.model, or such a file");
  OptionSet& o = line.options();
  o.add("text", &text, "the text");
  o.add("file", &file, "file with the text; neither: standard input");
  o.add("ids", &ids_only, "print the ids alone, one line");
  o.add("json", &json, "print one JSON object");
  o.add("parse_added", &parse_added,
        "marks of roles in the text become their tokens, as in a prompt that a template wrote");
  line.example("fathom tokenize runs/demo/model --text \"What is 17 + 25?\"");
  if (!line.parse(args)) return kExitOk;
  if (!text.empty() && !file.empty()) throw UsageError("expected --text or --file, found both");
  const Tokenizer tokenizer = Tokenizer::load(folder);
  if (!file.empty()) text = read_file(file);
  if (text.empty() && file.empty())
    text.assign(std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>());
  const std::vector<int32_t> ids =
      tokenizer.encode(text, parse_added ? AddedTokens::kParse : AddedTokens::kPlainText);
  const bool exact = tokenizer.decode(ids) == text;
  if (json) {
    Json out = Json::object({{"num_tokens", Json::number(std::ssize(ids))},
                             {"num_bytes", Json::number(std::ssize(text))},
                             {"round_trip", Json::boolean(exact)}});
    out.set("tokens", tokens_json(tokenizer, ids));
    fmt::print("{}\n", out.dump(ids_only ? 0 : 1));
  } else if (ids_only) {
    for (size_t i = 0; i < ids.size(); ++i) fmt::print("{}{}", i == 0 ? "" : " ", ids[i]);
    fmt::print("\n");
  } else {
    for (const int32_t id : ids)
      fmt::print("{:>8}  {}{}\n", id, piece_text(tokenizer.token_bytes(id)),
                 tokenizer.is_added(id) ? "  (added)" : "");
    fmt::print("{} tokens of {} for {} bytes, {:.2f} bytes a token; joined again: {}\n", ids.size(),
               tokenizer.vocab_size(), text.size(),
               ids.empty() ? 0 : static_cast<double>(text.size()) / static_cast<double>(ids.size()),
               exact ? "the same text" : "ANOTHER TEXT");
  }
  return exact ? kExitOk : kExitFailed;
}

}  // namespace fathom
