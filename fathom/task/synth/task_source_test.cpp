#include "fathom/task/synth/task_source.h"

#include <doctest/doctest.h>
#include <stdlib.h>
#include <unistd.h>

#include <map>
#include <set>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/text/bpe_trainer.h"
#include "fathom/text/chat_tokens.h"

namespace fathom {
namespace {

// A file under /tmp, removed again.
struct TaskFile {
  explicit TaskFile(const std::string& text) {
    char name[] = "/tmp/fathom_tasks_XXXXXX.jsonl";
    const int file = mkstemps(name, 6);
    REQUIRE(file >= 0);
    close(file);
    path = name;
    write_file_atomic(path, text);
  }
  ~TaskFile() { unlink(path.c_str()); }
  std::string path;
};

TEST_CASE(
    "tasks repeat by seed and index, follow the weights, and stay on their side of the split") {
  TaskOptions options;
  options.problems = {"mod10:1*3", "mod10:4-5", "maze:1*0.5"};
  options.thinking_share = 0.5;
  const TaskSource source(options);
  std::map<int, int> by_difficulty;
  std::set<std::string> prompts;
  int mazes = 0, thinking = 0;
  for (uint64_t i = 0; i < 900; ++i) {
    const Task t = source.draw(7, i, Split::kTrain);
    CHECK(t.problem == source.draw(7, i, Split::kTrain).problem);
    CHECK_FALSE(held_out(t.problem));
    CHECK(t.domain == (t.problem.family == "maze" ? "search" : "math"));
    mazes += t.problem.family == "maze";
    if (t.problem.family == "mod10") ++by_difficulty[t.problem.difficulty];
    thinking += t.start == TurnStart::kThinking;
    prompts.insert(t.problem.prompt);
  }
  CHECK(by_difficulty[1] > 500);
  CHECK(by_difficulty[4] + by_difficulty[5] > 150);
  CHECK(by_difficulty[2] + by_difficulty[3] == 0);
  CHECK(mazes > 60);
  CHECK(mazes < 140);
  CHECK(thinking > 400);
  CHECK(thinking < 500);
  for (uint64_t i = 0; i < 100; ++i) {
    const Task t = source.draw(7, i, Split::kHeldOut);
    CHECK(held_out(t.problem));
    CHECK_FALSE(prompts.contains(t.problem.prompt));
  }
}

TEST_CASE("a prompt ends with the tag of its mode, or before it") {
  BpeTrainOptions bpe{.vocab_size = 300};
  bpe.special_tokens.assign(kChatSpecialTokens.begin(), kChatSpecialTokens.end());
  BpeTrainer trainer(bpe);
  trainer.add("mod 10: 7,+5=?");
  const Tokenizer t = Tokenizer::from_json(trainer.train(), "test");
  Task task;
  task.problem.prompt = "mod 10<think>";
  const auto text = [&](TurnStart start) {
    task.start = start;
    return t.decode(task_prompt(t, task));
  };
  const std::string turn = std::string(kBosText) + std::string(kUserText) + task.problem.prompt +
                           std::string(kAssistantText);
  CHECK(text(TurnStart::kThinking) == turn + "<think>");
  CHECK(text(TurnStart::kAnswer) == turn + "</think>");
  CHECK(text(TurnStart::kChoice) == turn);
  CHECK(task_prompt(t, task).back() == *t.token_id(kAssistantText));
}

TEST_CASE("a file's problems keep their domain and rubric") {
  const TaskFile file(
      "{\"prompt\": \"Who?\", \"domain\": \"chat\", \"rubric\": [{\"id\": \"a\", \"text\": "
      "\"t\"}]}\n"
      "{\"prompt\": \"gcd 4,6\", \"answer\": \"2\", \"family\": \"gcd\"}\n");
  const std::vector<Task> tasks = read_tasks(file.path);
  REQUIRE(tasks.size() == 2);
  CHECK(tasks[0].domain == "chat");
  CHECK(tasks[0].group(9, 1).rubric.size() == 1);
  CHECK(tasks[1].domain == "math");
  CHECK(tasks[1].group(9, 1).max_tokens == 9);
  TaskOptions options;
  options.problems = {file.path + "*2", "gcd:1*0.5"};
  options.choose_mode = true;
  const TaskSource source(options);
  int from_file = 0;
  for (uint64_t i = 0; i < 200; ++i) {
    const Task t = source.draw(1, i, Split::kTrain);
    CHECK(t.start == TurnStart::kChoice);
    from_file += t.problem.prompt == "Who?" || t.problem.prompt == "gcd 4,6";
  }
  CHECK(from_file > 130);
  CHECK(from_file < 190);
}

TEST_CASE("programs bring their tests, generated or from a file") {
  TaskOptions options;
  options.problems = {"python:1-2"};
  const TaskSource generated(options);
  CHECK(generated.has_programs());
  const Task task = generated.draw(1, 0, Split::kHeldOut);
  CHECK(task.domain == "code");
  REQUIRE(task.group(9, 1).code != nullptr);
  CHECK(task.group(9, 1).code->tests.size() == 10);
  const TaskFile file(
      "{\"prompt\": \"Print 1.\", \"domain\": \"code\", \"code\": {\"language\": \"cpp\", "
      "\"tests\": [{\"input\": \"\", \"expected\": \"1\"}]}}\n");
  options.problems = {file.path};
  CHECK(TaskSource(options).has_programs());
  CHECK(read_tasks(file.path)[0].code->language == CodeLanguage::kCpp);
  options.problems = {"mod10:1"};
  CHECK_FALSE(TaskSource(options).has_programs());
  for (const char* code : {"{}", "{\"tests\": []}", "{\"language\": \"cobol\", \"tests\": []}"}) {
    const TaskFile bad(std::string("{\"prompt\": \"p\", \"code\": ") + code + "}\n");
    CHECK_THROWS_AS(read_tasks(bad.path), Error);
  }
}

TEST_CASE("mistakes in options and files are errors") {
  const auto fails = [](std::vector<std::string> problems, double share = 1) {
    TaskOptions options;
    options.problems = std::move(problems);
    options.thinking_share = share;
    CHECK_THROWS_AS(TaskSource{options}, Error);
  };
  fails({});
  fails({"mod11"});
  fails({"mod10:9"});
  fails({"/nonexistent.jsonl"});
  fails({"mod10"}, 1.5);
  const TaskFile good("{\"prompt\": \"p\"}\n"), none(""), bad("{\"prompt\": \"p\"}\n{\"x\": 1}\n");
  fails({good.path + "*0"});
  fails({good.path + "x"});
  fails({none.path});
  CHECK_THROWS_WITH_AS(read_tasks(bad.path), doctest::Contains("problem 2"), Error);
}

}  // namespace
}  // namespace fathom
