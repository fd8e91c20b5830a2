#include "fathom/cli/args.h"

#include <doctest/doctest.h>

namespace fathom {
namespace {

struct Sample {
  double temperature = 1.0;
  int64_t top_k = 0;
  bool stream = false, color = true;
  std::vector<std::string> stop;
  std::string run;
  std::vector<std::string> files;

  void parse(std::vector<std::string> words) {
    CommandLine line("sample", "draw text");
    line.positional("RUN", &run, "run folder");
    line.positionals("FILE", &files, "prompts", 1);
    OptionSet& o = line.options();
    o.add("temperature", &temperature, "0 means greedy");
    o.add("top_k", &top_k, "0 keeps all");
    o.add("stream", &stream, "print as it comes");
    o.add("color", &color, "use colours");
    o.add("stop", &stop, "strings that end the text");
    line.parse(words);
  }
};

std::string error_of(const std::vector<std::string>& words) {
  try {
    Sample().parse(words);
  } catch (const UsageError& e) {
    return e.what();
  }
  return "no error";
}

bool has(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("options and positionals reach their targets in any order") {
  Sample s;
  s.parse({"--top-k", "40", "runs/a", "x.txt", "--stream", "--no-color", "--temperature=-0.5",
           "y.txt", "--stop", "a,b"});
  CHECK(s.run == "runs/a");
  CHECK(s.files == std::vector<std::string>{"x.txt", "y.txt"});
  CHECK(s.top_k == 40);
  CHECK(s.temperature == -0.5);
  CHECK(s.stream);
  CHECK(!s.color);
  CHECK(s.stop == std::vector<std::string>{"a", "b"});
}

TEST_CASE("what is not given keeps its default") {
  Sample s;
  s.parse({"runs/a", "x.txt"});
  CHECK(s.temperature == 1.0);
  CHECK(s.color);
  CHECK(!s.stream);
}

TEST_CASE("a word after -- is no flag") {
  Sample s;
  s.parse({"runs/a", "--", "--stream"});
  CHECK(s.files == std::vector<std::string>{"--stream"});
  CHECK(!s.stream);
}

TEST_CASE("a wrong command line says what was expected, what came and what to do") {
  CHECK(has(error_of({"r", "f", "--temprature", "1"}), "did you mean --temperature?"));
  CHECK(has(error_of({"r", "f", "--temprature=1"}), "found \"--temprature\""));
  CHECK(
      has(error_of({"r", "f", "--top-k", "many"}), "--top-k: expected an integer, found \"many\""));
  CHECK(has(error_of({"r", "f", "--top_k", "3"}), "did you mean --top-k?"));
  CHECK(has(error_of({"r"}), "expected FILE (prompts), found nothing"));
  CHECK(has(error_of({}), "expected RUN"));
  CHECK(has(error_of({"r", "f", "--top-k"}), "--top-k"));
  CHECK(has(error_of({"r", "f", "-q"}), "found \"-q\""));
}

TEST_CASE("the help text lists every option with its kind and default") {
  double rate = 0.25;
  bool fast = true;
  CommandLine line("train", "train a model");
  line.options().add("learning_rate", &rate, "of the optimiser");
  line.options("extra").add("fast", &fast, "skip checks");
  const std::string help = line.help();
  CHECK(has(help, "usage: fathom train [--options]"));
  CHECK(has(help, "--learning-rate FLOAT"));
  CHECK(has(help, "of the optimiser [0.25]"));
  CHECK(has(help, "extra:"));
  CHECK(has(help, "skip checks (on; --no-fast turns it off)"));
}

}  // namespace fathom
