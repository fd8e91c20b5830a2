// fathom chat DIR: a conversation with a model, on a terminal or through pipes.
#include <fmt/core.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <string>

#include "fathom/base/file.h"
#include "fathom/cli/args.h"
#include "fathom/cli/chat_screen.h"
#include "fathom/cli/conversation.h"
#include "fathom/cli/line_reader.h"
#include "fathom/cli/machine.h"
#include "fathom/cli/prefix_folder.h"
#include "fathom/cli/runtime.h"
#include "fathom/cli/serve_model.h"
#include "fathom/cli/shell.h"

namespace fathom {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

struct ChatCommandOptions {
  std::string folder, thinking = "on", format = "auto", retention = "v32", system, tools, encoding;
  SampleParams sample{.max_tokens = 2048};
  int64_t seed = 0, context = 8192, drafts = 0, threads = 0;
  bool fold = false, dense = false;
  ServeOptions serve;
  PrefixFolderOptions prefixes;

  void fields(OptionSet& o) {
    o.add("thinking", &thinking, "on or off; /think changes it");
    o.add("fold", &fold, "show only the length of thoughts; /fold changes it");
    o.add("system", &system, "first message; /system changes it");
    o.add("tools", &tools, "JSON file with a list of tools; /tools changes it");
    o.add("max_tokens", &sample.max_tokens, "length of an answer, thinking included");
    o.add("temperature", &sample.temperature, "0: always the likeliest token");
    o.add("top_p", &sample.top_p, "keep the likeliest tokens with this much probability");
    o.add("top_k", &sample.top_k, "keep this many tokens; 0: all");
    o.add("min_p", &sample.min_p, "keep tokens with this share of the largest probability");
    o.add("seed", &seed, "of the random numbers");
  }
  void format_fields(OptionSet& o) {
    o.add("format", &format, "auto, v2, v3, r1, v3.1, v3.2, kimi, kimi-thinking or glm");
    o.add("retention", &retention, "earlier thoughts to keep: none, v32, keep_if_tools, all");
  }
  void engine_fields(OptionSet& o) {
    o.add("context", &context, "tokens of the conversation to make room for");
    o.add("drafts", &drafts,
          "tokens to guess with the multi-token prediction layer, while that is faster");
    o.add("dense", &dense, "attend to all tokens, also where the model has an indexer");
    o.add("threads", &threads, "threads; 0: all cores");
    serve.fields(o);
    prefixes.fields(o);
  }
};

// What Ctrl-C stops. A signal handler can reach nothing but a global; it stores one flag.
std::atomic<Conversation*> answering{nullptr};
static_assert(std::atomic<Conversation*>::is_always_lock_free);

void on_interrupt(int) {
  if (Conversation* c = answering.load()) c->interrupt();
}

// Without SA_RESTART, so that waiting for a line ends too.
void catch_interrupts() {
  struct sigaction action = {};
  action.sa_handler = on_interrupt;
  sigaction(SIGINT, &action, nullptr);
}

// Messages of a file's JSON as `select` finds them; errors name the file.
template <class Select>
std::vector<Message> read_messages(const std::string& file, const Select& select) {
  const Json json = Json::parse(read_file(file), file);
  try {
    return messages_from_json(select(json));
  } catch (const Error& e) {
    throw Error(e.code(), file + ": " + e.message(), e.hint());
  }
}

std::vector<Json> read_tools(const std::string& file) {
  // As a message has them, so that both spellings are understood.
  const auto message = [](const Json& tools) {
    return Json::array({Json::object({{"role", Json::string("system")}, {"tools", tools}})});
  };
  return read_messages(file, message).front().tools;
}

class ChatLoop {
 public:
  ChatLoop(Conversation& conversation, bool terminal)
      : conversation_(conversation), terminal_(terminal), screen_(stdout, terminal) {}

  ChatScreen& screen() { return screen_; }

  void run() {
    for (std::string line;;) {
      prompt();
      const LineReader::Outcome outcome = reader_.read(&line);
      if (outcome == LineReader::Outcome::kEnd) break;
      if (outcome == LineReader::Outcome::kInterrupted) {
        if (!terminal_) break;
        fmt::print("\n");
        screen_.print_dim("/quit or Ctrl-D leaves\n");
        continue;
      }
      if (line.empty()) continue;
      try {
        if (!handle(line)) break;
      } catch (const InternalError&) {
        throw;
      } catch (const Error& e) {  // the conversation goes on
        screen_.end();
        std::fflush(stdout);
        fmt::print(stderr, "error: {}{}{}\n", e.message(), e.hint().empty() ? "" : "; ", e.hint());
      }
    }
    if (terminal_) fmt::print("\n");
  }

 private:
  struct Word {
    const char* name;
    const char* doc;
    bool (ChatLoop::*run)(const std::string& rest);  // false: leave
  };
  static constexpr int kNumWords = 11;
  static const Word kWords[kNumWords];

  void prompt() {
    if (!terminal_) return;
    const std::vector<ToolCall> open = conversation_.open_calls();
    fmt::print("{}> ", open.empty() ? "" : "result of " + open.front().name);
    std::fflush(stdout);
  }

  bool handle(const std::string& line) {
    if (line.front() != '/') {
      answer(line);
      return true;
    }
    const size_t blank = line.find(' ');
    const std::string name = line.substr(0, blank);
    for (const Word& w : kWords)
      if (name == w.name) return (this->*w.run)(blank == line.npos ? "" : line.substr(blank + 1));
    throw Error(Code::kInvalidArgument, fmt::format("expected a command, found {}", name),
                "/help lists them");
  }

  // The line is a result where calls wait for one, else the user's message.
  void answer(const std::string& line) {
    const auto start = Clock::now();
    ChatAnswer a;
    answering = &conversation_;
    try {
      if (conversation_.open_calls().empty())
        a = conversation_.ask(line, &screen_);
      else if (!conversation_.give_result(line, &screen_, &a))
        return void(answering = nullptr);
    } catch (...) {
      answering = nullptr;
      throw;
    }
    answering = nullptr;
    screen_.end();
    const double all_s = seconds_since(start);
    std::string note = fmt::format("{} prompt tokens, {} tokens in {:.2f} s, {}", a.num_prompt,
                                   a.num_tokens, all_s, finish_reason_name(a.finished));
    if (a.malformed) note += ", markup repaired";
    if (terminal_) screen_.print_dim("[" + note + "]\n");
  }

  bool help(const std::string&) {
    for (const Word& w : kWords) fmt::print("  {:<9} {}\n", w.name, w.doc);
    fmt::print("  Ctrl-C stops an answer; a line that ends in \\ goes on in the next\n");
    return true;
  }
  bool think(const std::string& rest) {
    if (rest != "on" && rest != "off")
      throw Error(Code::kInvalidArgument,
                  fmt::format("/think: expected on or off, found \"{}\"", rest));
    conversation_.settings.thinking = rest == "on";
    return true;
  }
  bool fold(const std::string&) {
    screen_.folded = !screen_.folded;
    screen_.print_dim(screen_.folded ? "thoughts are folded\n" : "thoughts are shown\n");
    return true;
  }
  bool tools(const std::string& rest) {
    conversation_.tools = rest.empty() || rest == "off" ? std::vector<Json>() : read_tools(rest);
    for (const Json& t : conversation_.tools)
      screen_.print_dim("tool " + t.at("name").as_string() + "\n");
    return true;
  }
  bool run_tool(const std::string& rest) {
    const std::vector<ToolCall> open = conversation_.open_calls();
    if (open.empty() || rest.empty())
      throw Error(Code::kInvalidArgument,
                  fmt::format("/run: expected a command for a call that waits for its result, "
                              "found no {}",
                              open.empty() ? "call" : "command"));
    CommandOutput out = run_command(rest, open.front().arguments);
    if (out.status != 0) out.text += fmt::format("\nexit status {}", out.status);
    while (out.text.ends_with('\n')) out.text.pop_back();
    screen_.print_dim(out.text + "\n");
    answer(out.text);
    return true;
  }
  bool system(const std::string& rest) {
    conversation_.system = rest;
    return true;
  }
  bool reset(const std::string&) {
    conversation_.reset();
    return true;
  }
  bool history(const std::string&) {
    for (const Message& m : conversation_.all_messages()) {
      fmt::print("{}: ", role_name(m.role));
      if (!m.reasoning_content.empty()) screen_.print_dim(m.reasoning_content + "\n\n");
      fmt::print("{}\n", m.content);
      for (const ToolCall& c : m.tool_calls) fmt::print("call {} {}\n", c.name, c.arguments);
    }
    return true;
  }
  bool save(const std::string& rest) {
    if (rest.empty()) throw Error(Code::kInvalidArgument, "/save: expected a file, found none");
    Json messages = Json::array();
    for (const Message& m : conversation_.all_messages()) messages.push(message_to_json(m));
    write_file_atomic(rest, Json::object({{"messages", std::move(messages)}}).dump() + "\n");
    return true;
  }
  bool load(const std::string& rest) {
    if (rest.empty()) throw Error(Code::kInvalidArgument, "/load: expected a file, found none");
    conversation_.set_messages(
        read_messages(rest, [](const Json& saved) { return saved.at("messages"); }));
    return true;
  }
  bool quit(const std::string&) { return false; }

  Conversation& conversation_;
  bool terminal_;
  ChatScreen screen_;
  LineReader reader_;
};

const ChatLoop::Word ChatLoop::kWords[kNumWords] = {
    {"/help", "this list", &ChatLoop::help},
    {"/think", "on or off: think before the answer", &ChatLoop::think},
    {"/fold", "hide thoughts, or show them again", &ChatLoop::fold},
    {"/tools", "FILE: JSON list of tools that may be called; without FILE none", &ChatLoop::tools},
    {"/run", "COMMAND: its output is the call's result; it can read the arguments",
     &ChatLoop::run_tool},
    {"/system", "TEXT: the first message; without TEXT none", &ChatLoop::system},
    {"/reset", "forget the conversation", &ChatLoop::reset},
    {"/history", "show the conversation", &ChatLoop::history},
    {"/save", "FILE: write it as a line of JSON", &ChatLoop::save},
    {"/load", "FILE: go on with a saved one", &ChatLoop::load},
    {"/quit", "leave", &ChatLoop::quit},
};

void check_usage(ChatCommandOptions& o) {
  try {
    o.sample.seed = static_cast<uint64_t>(o.seed);
    check_params(o.sample);
    parse_retention(o.retention);
    if (o.format != "auto") parse_chat_format(o.format);
  } catch (const Error& e) {
    throw UsageError(e.message(), e.hint());
  }
  if (o.thinking != "on" && o.thinking != "off")
    throw UsageError(fmt::format("--thinking: expected on or off, found \"{}\"", o.thinking));
  if (o.context < 2)
    throw UsageError(fmt::format("--context: expected at least 2, found {}", o.context));
}

}  // namespace

int cmd_chat(Args args) {
  ChatCommandOptions o;
  CommandLine line("chat", "talk with a model");
  line.positional("DIR", &o.folder, "checkpoint folder: config.json, safetensors, tokenizer.json");
  o.fields(line.options());
  o.format_fields(line.options("format"));
  o.engine_fields(line.options("engine"));
  line.example("fathom chat runs/demo/model");
  line.example("echo \"What is 17 + 25?\" | fathom chat runs/demo/model --thinking off");
  if (!line.parse(args)) return kExitOk;
  check_usage(o);

  const bool terminal = isatty(STDIN_FILENO) == 1 && isatty(STDOUT_FILENO) == 1;
  const auto start = Clock::now();
  Runtime runtime(Precision::kF32, o.threads);
  Ctx ctx = runtime.ctx();
  const Tokenizer tokenizer = Tokenizer::load(o.folder);
  const int64_t num_pages = (o.context + o.drafts + kPageTokens - 1) / kPageTokens;
  const Model model =
      load_to_serve(ctx, o.folder, o.serve, {.num_pages = num_pages, .num_sampled = 1 + o.drafts});
  const int64_t room = std::min(o.context + o.drafts, model.config.max_position_embeddings);
  Engine engine(ctx, model,
                {.num_pages = (room + kPageTokens - 1) / kPageTokens,
                 .num_drafts = o.drafts,
                 .drafts_must_pay = true,
                 .selection = o.dense ? KeySelection::kDense : KeySelection::kSparse,
                 .cache = parse_cache_option(o.serve.cache),
                 .store = o.prefixes.store(o.folder, o.serve.quant)});
  print_store_warnings(engine);
  const ChatFormat format = o.format == "auto"
                                ? detect_chat_format(model.config.model_type, tokenizer)
                                : parse_chat_format(o.format);
  ChatTemplate words = load_chat_template(o.folder, format);
  if (format != ChatFormat::kV32 || !o.tools.empty())
    for (const std::string& w : words.warnings) fmt::print(stderr, "warning: {}\n", w);
  Conversation conversation(engine, tokenizer, std::move(words),
                            {.format = format,
                             .thinking = o.thinking == "on",
                             .retention = parse_retention(o.retention),
                             .sample = o.sample});
  conversation.system = o.system;
  if (!o.tools.empty()) conversation.tools = read_tools(o.tools);
  ChatLoop loop(conversation, terminal);
  loop.screen().folded = o.fold;
  if (terminal)
    loop.screen().print_dim(fmt::format("{} loaded in {:.1f} s, {} tokens of room, {}; /help\n",
                                        o.folder, seconds_since(start), engine.max_context(),
                                        human_bytes(resident_bytes())));
  catch_interrupts();
  loop.run();
  print_store_warnings(engine);
  return kExitOk;
}

}  // namespace fathom
