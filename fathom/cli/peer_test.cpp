#include "fathom/cli/peer.h"

#include <doctest/doctest.h>

#include <chrono>

#include "fathom/base/error.h"

namespace fathom {
namespace {

void check(const PeerFigure& f, bool prefill, int64_t tokens, int64_t depth, int64_t sequences,
           double rate) {
  CHECK(f.prefill == prefill);
  CHECK(f.tokens == tokens);
  CHECK(f.depth == depth);
  CHECK(f.sequences == sequences);
  CHECK(f.tokens_per_s == rate);
}

std::string message_of(const std::string& command, double limit_s = 0) {
  try {
    run_peer(command, limit_s);
  } catch (const Error& e) {
    return e.message();
  }
  return "";
}

bool has(const std::string& text, std::string_view part) { return text.find(part) != text.npos; }

}  // namespace

TEST_CASE("a table of llama-bench gives prefill and decode with their depths") {
  const auto f = parse_peer(
      "load_backend: loaded\n"
      "| model                 |       size | threads | fa |            test |                  "
      "t/s |\n"
      "| --------------------- | ---------: | ------: | -: | --------------: | "
      "-------------------: |\n"
      "| deepseek32 ?B Q8_0    | 123.46 MiB |       2 |  1 |           pp512 |        405.17 ± "
      "1.20 |\n"
      "| deepseek32 ?B Q8_0    | 123.46 MiB |       2 |  1 |   tg32 @ d2048 |         92.03 ± 0.00 "
      "|\n"
      "| deepseek32 ?B Q8_0    | 123.46 MiB |       2 |  1 | pp512+tg128 @ d2048 |   99.00 ± 0.00 "
      "|\n"
      "| deepseek2 ?B Q8_0     | 123.46 MiB |       2 |  1 |    tg16@pp4096 |         36.50 ± 0.10 "
      "|\r\n"
      "\nbuild: 571d0d5 (0)\n");
  REQUIRE(f.size() == 3);
  check(f[0], true, 512, 0, 1, 405.17);
  check(f[1], false, 0, 2048, 1, 92.03);
  check(f[2], false, 0, 4096, 1, 36.5);
}

TEST_CASE("a sweep counts the tokens before a row, a batch those behind its prompts") {
  const auto sweep = parse_peer(
      "|    PP |     TG |   N_KV |   T_PP s | S_PP t/s |   T_TG s | S_TG t/s |\n"
      "|-------|--------|--------|----------|----------|----------|----------|\n"
      "|   512 |     32 |      0 |    1.471 |   348.06 |    0.386 |    82.90 |\n"
      "|   512 |     32 |   4096 |    5.389 |    95.01 |    0.889 |    36.00 |\n");
  REQUIRE(sweep.size() == 4);
  check(sweep[0], true, 512, 0, 1, 348.06);
  check(sweep[3], false, 0, 4096, 1, 36);
  const auto batch = parse_peer(
      "|    PP |     TG |    B |   N_KV |   T_PP s | S_PP t/s |   T_TG s | S_TG t/s |      T s |   "
      " S t/s |\n"
      "|-------|--------|------|--------|----------|----------|----------|----------|----------|---"
      "-------|\n"
      "|   128 |     32 |   16 |   2560 |    2.645 |   774.10 |    0.681 |   752.00 |    3.326 |   "
      "769.60 |\n");
  REQUIRE(batch.size() == 2);
  check(batch[0], true, 128, 0, 16, 774.1);
  check(batch[1], false, 0, 128, 16, 752);
}

TEST_CASE("a plain line is a figure of decoding at the depth that was asked for") {
  const auto f = parse_peer("step 3\ntokens/s median 12.5, best 13\ntokens/s median nan\n");
  REQUIRE(f.size() == 1);
  check(f[0], false, 0, -1, 1, 12.5);
}

TEST_CASE("rows that are cut off, of other columns or without a rate are passed over") {
  const std::string header = "| test | t/s |\n";
  for (const char* row : {"| tg32 |", "| tg32 | 5 | 6 |", "| tg32 | - |", "| tg32 | 0 |",
                          "| tg32 | inf |", "| tg | 5 |", "| tg32 @ d | 5 |", "| tg32 x | 5 |",
                          "| pp9999999999999999999999 | 5 |", "tg32 | 5"})
    CHECK_MESSAGE(parse_peer(header + row).empty(), row);
  CHECK(parse_peer("| tg32 | 5 |").empty());  // no header
  CHECK(parse_peer(header + "| tg32 | 5 |").size() == 1);
}

TEST_CASE("the marks of a command stand for the row") {
  CHECK(fill_in("x -d {depth} -p {prefill} -t {threads} -c $(({depth}+1)) -npl {sequences} {y}",
                {.threads = 2, .depth = 8192, .prefill = 512, .sequences = 16}) ==
        "x -d 8192 -p 512 -t 2 -c $((8192+1)) -npl 16 {y}");
}

TEST_CASE("only figures of the row are taken; without one the message names what there is") {
  const std::vector<PeerFigure> figures = {
      {.prefill = true, .tokens = 512, .depth = 0, .tokens_per_s = 1},
      {.prefill = true, .tokens = 512, .depth = 8, .tokens_per_s = 2},
      {.depth = 8, .tokens_per_s = 3},
      {.depth = 8, .sequences = 4, .tokens_per_s = 4}};
  PeerRates rates;
  pick_figures(figures, {.threads = 1, .depth = 8, .prefill = 512, .sequences = 4}, &rates);
  CHECK(rates.prefill == std::vector<double>{2});
  CHECK(rates.decode == std::vector<double>{3});
  CHECK(rates.sequences == std::vector<double>{4});
  std::string message;
  try {
    pick_figures(figures, {.threads = 1, .depth = 16, .prefill = 512}, &rates);
  } catch (const Error& e) {
    message = e.message();
  }
  CHECK(has(message, "prefill of 512 at depth 16"));
  CHECK(has(message, "decode, 4 sequences at depth 8"));
}

TEST_CASE("what goes wrong with a peer is said") {
  CHECK(run_peer("echo tokens/s median 5 >&2", 0).front().tokens_per_s == 5);
  const std::string absent = message_of("no-such-program-anywhere");
  CHECK(has(absent, "127"));
  CHECK(has(absent, "not found"));
  CHECK(has(message_of("echo tokens/s median 5; echo no model >&2; exit 3"), "came 3"));
  CHECK(has(message_of("echo tokens/s median 5; echo no model >&2; exit 3"), "no model"));
  CHECK(has(message_of("kill -9 $$"), "came 137"));
  CHECK(has(message_of("echo 5 tokens a second"), "5 tokens a second"));
  CHECK(has(message_of("true"), "came \"nothing\""));
}

TEST_CASE("a peer that does not end is stopped, with what it started") {
  const auto begin = std::chrono::steady_clock::now();
  CHECK(has(message_of("echo loading; (sleep 60) | cat", 0.2), "loading"));
  CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(20));
  CHECK(message_of("echo tokens/s median 5", 20).empty());
}

}  // namespace fathom
