#include "fathom/text/completion_stream.h"

#include <doctest/doctest.h>

#include "fathom/base/file.h"
#include "fathom/text/chat_tokens.h"
#include "fathom/text/completion_parser.h"
#include "fathom/text/json_repair.h"
#include "fathom/text/test_text.h"

namespace fathom {
namespace {

const std::string kE(kEosText), kN(kEndThinkText), kD(kDsmlText);

// A result as one string, and the same put together from the events alone.
std::string show(const StreamedCompletion& r) {
  std::string out = "R[" + r.reasoning_content + "] C[" + r.content + "]";
  for (size_t i = 0; i < r.tool_calls.size(); ++i)
    out += " " + r.tool_calls[i].name + r.tool_calls[i].arguments + (r.complete[i] ? "" : "(cut)");
  return out;
}

struct Collected {
  std::string reasoning, content, calls;
  void add(const std::vector<StreamEvent>& events) {
    using Kind = StreamEvent::Kind;
    for (const StreamEvent& e : events) {
      if (e.kind == Kind::kReasoning) reasoning += e.text;
      if (e.kind == Kind::kContent) content += e.text;
      if (e.kind == Kind::kCallBegin) calls += " " + e.text;
      if (e.kind == Kind::kCallArguments) calls += e.text;
    }
  }
};

struct Parsed {
  StreamedCompletion result;
  std::string text, events, raw;
};

// Feeds the pieces that end at `cuts`.
Parsed parse(std::string_view text, StreamOptions options, const std::vector<size_t>& cuts = {},
             StreamEnd end = StreamEnd::kStop) {
  CompletionStream stream(std::move(options));
  Collected all;
  size_t at = 0;
  for (const size_t cut : cuts) {
    all.add(stream.feed(text.substr(at, cut - at)));
    at = cut;
  }
  all.add(stream.feed(text.substr(at)));
  all.add(stream.finish(end));
  const StreamedCompletion& r = stream.result();
  std::string calls;
  for (const ToolCall& c : r.tool_calls) calls += " " + c.name + c.arguments;
  CHECK(all.reasoning == r.reasoning_content);
  CHECK(all.content == r.content);
  CHECK(all.calls == calls);
  return {r, show(r) + (r.malformed ? " malformed" : "") + (r.ended ? " ended" : ""), all.calls,
          r.raw_markup};
}

StreamOptions chat() { return {.mode = ThinkMode::kChat}; }

std::string block(const std::string& invokes) {
  return "\n\n<" + kD + "function_calls>\n" + invokes + "</" + kD + "function_calls>";
}
std::string invoke(const std::string& name, const std::string& parameters) {
  return "<" + kD + "invoke name=\"" + name + "\">\n" + parameters + "</" + kD + "invoke>\n";
}
std::string parameter(const std::string& key, bool text, const std::string& value) {
  return "<" + kD + "parameter name=\"" + key + "\" string=\"" + (text ? "true" : "false") + "\">" +
         value + "</" + kD + "parameter>\n";
}

std::vector<Json> tools() {
  return {Json::parse(R"({"name": "f", "parameters": {"properties": {
    "n": {"type": "integer"}, "s": {"type": "string"}, "l": {"type": "array"},
    "b": {"type": "boolean"}, "o": {"type": ["object", "null"]}}}})",
                      "tools")};
}

}  // namespace

TEST_CASE("well-formed completions parse as by the strict parser, at every split") {
  const std::string file = "tests/golden/encoding/parse.jsonl";
  size_t compared = 0;
  for (const Json& row : Json::parse_lines(read_file(file), file)) {
    const std::string& text = row.at("text").as_string();
    const ThinkMode mode = parse_think_mode(row.at("mode").as_string());
    const std::string whole = parse(text, {.mode = mode}).text;
    for (size_t cut = 0; cut <= text.size(); ++cut)
      if (parse(text, {.mode = mode}, {cut}).text != whole)
        FAIL_CHECK("split at " << cut << " of " << json_quote(text));
    std::vector<size_t> each;
    for (size_t cut = 0; cut < text.size(); ++cut) each.push_back(cut);
    CHECK(parse(text, {.mode = mode}, each).text == whole);
    const Result<Completion> strict = parse_completion(text, mode);
    const StreamedCompletion r = parse(text, {.mode = mode}).result;
    if (!strict || r.malformed) continue;
    ++compared;
    CHECK(r.content == strict->content);
    CHECK(r.reasoning_content == strict->reasoning_content);
    REQUIRE(r.tool_calls.size() == strict->tool_calls.size());
    for (size_t i = 0; i < r.tool_calls.size(); ++i) {
      CHECK(r.complete[i]);
      CHECK(r.tool_calls[i].name == strict->tool_calls[i].name);
      CHECK(r.tool_calls[i].arguments == strict->tool_calls[i].arguments);
    }
  }
  CHECK(compared > 60);
}

TEST_CASE("text is given out as soon as it is certain, and no sooner") {
  CompletionStream s(chat());
  const auto feed = [&](std::string_view text) {
    Collected c;
    c.add(s.feed(text));
    return c.content;
  };
  CHECK(feed("Hello") == "Hello");
  CHECK(feed(" a <") == " a ");
  CHECK(feed("b\n") == "<b");
  CHECK(feed("\n<") == "");
  CHECK(feed("x") == "\n\n<x");
  CHECK(feed("\n\n<" + kD) == "");
  CHECK(feed("function_calls>\n<" + kD + "invoke name=\"f\">\n<" + kD) == "");
  CHECK(feed("parameter name=\"s\" string=\"true\">abc") == "");
  CHECK(s.result().tool_calls.at(0).arguments == "{\"s\": \"abc");
}

TEST_CASE("what models write wrongly is understood") {
  const auto text = [](const std::string& in) {
    return parse(in, {.mode = ThinkMode::kChat, .tools = tools()}).text;
  };
  const std::string n1 = parameter("n", false, "1"), call = invoke("f", n1);
  CHECK(text("x" + block(call) + kE) == "R[] C[x] f{\"n\": 1} ended");
  CHECK(text("x\n\n<" + kD + "tool_calls>\n" + call + "</" + kD + "tool_calls>" + kE) ==
        "R[] C[x] f{\"n\": 1} ended");
  const std::string good = "R[] C[x] f{\"n\": 1} malformed ended";
  CHECK(text("x\n\n" + call + kE) == good);                              // no wrapper
  CHECK(text("x\n" + call + kE) == good);                                // one line end
  CHECK(text("x\n\n<" + kD + "function_calls>\n" + call + kE) == good);  // wrapper not closed
  CHECK(text("x\n\n<" + kD + "function_calls>\n<" + kD + "invoke name=\"f\">\n" + n1 + kE) == good);
  CHECK(text("x\n\n<" + kD + "function_calls>\n<" + kD + "invoke name='f' >\n<" + kD +
             "parameter name=n string=false>1</" + kD + "parameter>" + kE) == good);
  CHECK(text("x\n\n" + kD + "function_calls>\n" + kD + "invoke name=\"f\">\n" + n1 + "</" + kD +
             "invoke>" + kE) == good);  // "<" lost
  CHECK(text("x" + block(call) + "\n" + block(call) + kE) ==
        "R[] C[x] f{\"n\": 1} f{\"n\": 1} ended");
  CHECK(text("x" + block("<" + kD + "invoke name=\"f\">\n{\"n\": 1}\n</" + kD + "invoke>\n") +
             kE) == good);
  CHECK(text("x" + block(invoke("f", n1 + parameter("n", false, "2"))) + kE) == good);
  CHECK(text("x" + block(call) + "bye" + kE) == "R[] C[xbye] f{\"n\": 1} malformed ended");
  CHECK(text("x" + block(invoke("", n1) + call) + kE) == good);  // a call without name is left out
  CHECK(text("x<|DSML|invoke name=\"f\">\n" + n1 + "</|DSML|invoke>" + kE) == good);
  CHECK(text("x\n\n<" + kD + "invoke\n name=\"f\"\n>\n" + n1 + "</" + kD + "invoke>" + kE) == good);
}

TEST_CASE("a call inside an open thought ends the thought") {
  const Parsed p = parse("let me" + block(invoke("f", "")) + kE, {});
  CHECK(p.text == "R[let me] C[] f{} malformed ended");
  CHECK_FALSE(p.result.thought_closed);
}

TEST_CASE("a text that is cut off gives partial calls, never markup") {
  const std::string text =
      "r" + kN + "hi" +
      block(invoke("f", parameter("s", true, "abc") + parameter("n", false, "12"))) + kE;
  for (size_t n = 0; n < text.size(); ++n) {
    const Parsed p = parse(text.substr(0, n), {}, {}, StreamEnd::kLength);
    const StreamedCompletion& r = p.result;
    // Line ends before a block that does not come any more are content.
    CHECK(std::string("hi\n\n").starts_with(r.content));
    for (const ToolCall& c : r.tool_calls) {
      CHECK(c.name == "f");
      const Json arguments = Json::parse(c.arguments, "arguments");
      if (const Json* s = arguments.find("s"))
        CHECK(std::string("abc").starts_with(s->as_string()));
      if (const Json* v = arguments.find("n")) CHECK(v->as_int() == 12);
    }
    if (!r.complete.empty() && r.complete[0]) CHECK(n > text.find("</" + kD + "invoke"));
  }
}

TEST_CASE("the call tokens of V3.1, V3 and R1 are understood") {
  const auto legacy = [](const std::string& calls) {
    return "sure" + std::string(kToolCallsBeginText) + calls + std::string(kToolCallsEndText) + kE;
  };
  const auto one = [](const std::string& name, const std::string& rest) {
    return std::string(kToolCallBeginText) + name + std::string(kToolSepText) + rest +
           std::string(kToolCallEndText);
  };
  const std::string v31 = legacy(one("f", "{\"n\": 1}") + one("g", "{}"));
  CHECK(parse(v31, chat()).text == "R[] C[sure] f{\"n\": 1} g{} ended");
  const std::string v3 = legacy(one("function", "f\n```json\n{\"n\": 1}\n```") + "\n" +
                                one("function", "g\n```json\n{}\n```"));
  CHECK(parse(v3, chat()).text == "R[] C[sure] f{\"n\": 1} g{} ended");
  for (size_t cut = 0; cut <= v3.size(); ++cut) {
    CHECK(parse(v3, chat(), {cut}).text == parse(v3, chat()).text);
    CHECK(parse(v3.substr(0, cut), chat(), {}, StreamEnd::kLength).result.content.find("\uFF5C") ==
          std::string::npos);
  }
}

TEST_CASE("arguments are brought into the type of the schema") {
  const std::vector<Json> all = tools();
  const auto repaired = [&](const char* key, std::string_view raw) {
    return repair_argument(raw, property_schema(&all[0], key));
  };
  CHECK(repaired("n", "5") == "5");
  CHECK(repaired("n", "\"5\"") == "5");
  CHECK(repaired("s", "5") == "\"5\"");
  CHECK(repaired("s", "\"5\"") == "\"5\"");
  CHECK(repaired("s", "say \"hi\"") == "\"say \\\"hi\\\"\"");
  CHECK(repaired("l", "['a', 2, True, None,]") == "[\"a\", 2, true, null]");
  CHECK(repaired("l", "[1, 2") == "[1, 2]");
  CHECK(repaired("l", "\"[1, 2]\"") == "[1, 2]");
  CHECK(repaired("b", "True") == "true");
  CHECK(repaired("o", "{a: 1, 'b': {\"c\": \"\\u00e9\"}") ==
        "{\"a\": 1, \"b\": {\"c\": \"\u00E9\"}}");
  CHECK(repaired("o", "None") == "null");
  CHECK(repaired("o", "words") == "\"words\"");
  CHECK(repaired("unknown", "nope") == "\"nope\"");
  CHECK(repaired("unknown", "[1]") == "[1]");
  const Parsed p =
      parse(block(invoke("f", parameter("n", true, "5") + parameter("b", false, "True"))) + kE,
            {.mode = ThinkMode::kChat, .tools = all});
  CHECK(p.result.tool_calls.at(0).arguments == "{\"n\": 5, \"b\": true}");
}

namespace {

// The tokens of a turn with calls, then damaged: left out, doubled, blanks put in, the end cut off.
std::string damaged_turn(Rng& rng) {
  std::vector<std::string> t;
  const auto add = [&](std::initializer_list<std::string> more) { t.insert(t.end(), more); };
  const char* const names[] = {"function_calls", "tool_calls"};
  const std::string wrapper = names[rng.below(2)];
  const bool wrapped = rng.below(4) != 0;
  if (rng.below(2)) add({"some ", "thought", "\n", kN});
  add({"words ", "here"});
  if (wrapped) add({"\n\n", "<", kD, wrapper, ">", "\n"});
  for (uint64_t n = 1 + rng.below(2); n > 0; --n) {
    add({"<", kD, "invoke", " name", "=\"", "look", "\">", "\n"});
    for (uint64_t k = rng.below(3); k > 0; --k)
      add({"<", kD, "parameter", " name", "=\"", "key" + std::to_string(k), "\"", " string", "=\"",
           rng.below(2) ? "true" : "false", "\">", rng.below(2) ? "va\nlue" : "[1, 2]", "</", kD,
           "parameter", ">", "\n"});
    add({"</", kD, "invoke", ">", "\n"});
  }
  if (wrapped && rng.below(4) != 0) add({"</", kD, wrapper, ">"});
  if (rng.below(3) != 0) add({kE});
  for (uint64_t n = rng.below(4); n > 0; --n) {
    const size_t i = rng.below(t.size());
    switch (rng.below(5)) {
      case 0:  // the marker is one token; what is left without it is plain text
        if (t[i] != kD && t[i] != kN && t[i] != "<|DSML|") t[i] = "";
        break;
      case 1:
        t.insert(t.begin() + static_cast<ptrdiff_t>(i), t[i]);
        break;
      case 2:
        t.insert(t.begin() + static_cast<ptrdiff_t>(i), rng.below(2) ? " " : "\n");
        break;
      case 3:
        if (t[i] != kD) t.insert(t.begin() + static_cast<ptrdiff_t>(i), std::string(kThinkText));
        break;
      case 4:
        if (i + 1 < t.size() && t[i] == "<" && t[i + 1] == kD) t[i] = "", t[i + 1] = "<|DSML|";
        break;
    }
  }
  std::string out;
  for (const auto& token : t) out += token;
  if (rng.below(3) == 0) out.resize(rng.below(out.size() + 1));
  return out;
}

}  // namespace

TEST_CASE("a hundred thousand damaged turns leak no markup and parse the same at any split") {
  Rng rng(77, "damaged turns");
  size_t with_calls = 0, failures = 0;
  for (int i = 0; i < 100000 && failures < 5; ++i) {
    const std::string text = damaged_turn(rng);
    const StreamOptions options{.mode = rng.below(2) ? ThinkMode::kThinking : ThinkMode::kChat};
    const StreamEnd end = rng.below(2) ? StreamEnd::kStop : StreamEnd::kLength;
    const Parsed whole = parse(text, options, {}, end);
    const StreamedCompletion& r = whole.result;
    with_calls += r.calls_tools();
    for (const std::string* part : {&r.content, &r.reasoning_content}) {
      for (const char* markup :
           {"\uFF5C", "DSML", "<think>", "</think>", "name=\"", "string=\"", "<|"}) {
        if (part->find(markup) == part->npos) continue;
        ++failures;
        FAIL_CHECK("leaks " << markup << ": " << json_quote(text) << " gives " << whole.text);
      }
    }
    for (const ToolCall& c : r.tool_calls) CHECK(Json::parse(c.arguments, "arguments").is_object());
    std::vector<size_t> cuts;
    for (size_t at = rng.below(9); at < text.size(); at += 1 + rng.below(9)) cuts.push_back(at);
    const Parsed pieces = parse(text, options, cuts, end);
    if (pieces.text != whole.text || pieces.raw != whole.raw) {
      ++failures;
      FAIL_CHECK("splits differ: " << json_quote(text) << " gives " << whole.text << " and "
                                   << pieces.text);
    }
  }
  CHECK(with_calls > 50000);
}

TEST_CASE("random bytes between markers neither crash nor depend on the split") {
  Rng rng(78, "random markers");
  const std::string parts[] = {"<",
                               "</",
                               kD,
                               "invoke",
                               "parameter",
                               " name=\"a\"",
                               " string=\"true\"",
                               ">",
                               "\n",
                               "\n\n",
                               kE,
                               kN,
                               std::string(kThinkText),
                               "\uFF5C",
                               "x",
                               "function_calls",
                               "\"",
                               std::string(kToolCallBeginText),
                               std::string(kToolSepText),
                               std::string(kToolCallEndText),
                               "\xF0\x9F",
                               "\xFF",
                               "{\"a\": 1}",
                               "|DSML|",
                               std::string(kUserText)};
  for (int i = 0; i < 20000; ++i) {
    std::string text;
    for (uint64_t n = rng.below(25); n > 0; --n) text += parts[rng.below(std::size(parts))];
    const StreamEnd end = rng.below(2) ? StreamEnd::kStop : StreamEnd::kLength;
    const Parsed whole = parse(text, {}, {}, end);
    for (const ToolCall& c : whole.result.tool_calls)
      CHECK(Json::parse(c.arguments, "arguments").is_object());
    std::vector<size_t> each;
    for (size_t at = 1; at < text.size(); ++at) each.push_back(at);
    CHECK(parse(text, {}, each, end).text == whole.text);
  }
}

}  // namespace fathom
