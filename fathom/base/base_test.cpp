#include <doctest/doctest.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <numeric>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/base/json.h"
#include "fathom/base/options.h"
#include "fathom/base/rng.h"
#include "fathom/base/thread_pool.h"

namespace fathom {

TEST_CASE("json keeps key order, duplicates and number text") {
  const std::string text = R"({"b": 1.50, "a": [1e2, true, null], "b": "\u00e9"})";
  const Json j = Json::parse(text, "test");
  CHECK(j.dump() == "{\"b\": 1.50, \"a\": [1e2, true, null], \"b\": \"\xC3\xA9\"}");
  CHECK(j.at("b").as_string() == "\xC3\xA9");
  CHECK_THROWS_AS(Json::parse("[1, 2", "test"), Error);
  CHECK_THROWS_AS(Json::parse(std::string(5000, '['), "test"), Error);
  CHECK_THROWS_AS(j.at("c"), Error);
  for (const char* lone : {R"("\udc00")", R"("\ud800")", R"({"\udc00": 1})"})
    CHECK_THROWS_AS(Json::parse(lone, "test"), Error);
}

TEST_CASE(
    "parallel_for visits every index once on any number of threads and passes exceptions on") {
  for (const int threads : {1, 2, 3}) {
    ThreadPool pool(threads);
    for (const int64_t n : {0, 1, 2, 7, 1000}) {
      std::vector<std::atomic<int>> seen(static_cast<size_t>(n));
      pool.parallel_for(n, 3, [&](int64_t b, int64_t e, int) {
        for (int64_t i = b; i < e; ++i) ++seen[static_cast<size_t>(i)];
      });
      for (const auto& s : seen) CHECK(s == 1);
    }
    CHECK_THROWS_AS(pool.parallel_for(10, 1,
                                      [](int64_t b, int64_t, int) {
                                        if (b == 4) throw Error(Code::kInternal, "four");
                                      }),
                    Error);
  }
}

TEST_CASE("a nested call runs serially under the number of the thread that makes it") {
  ThreadPool pool(4);
  std::atomic<int> strange{0}, visited{0};
  pool.parallel_for(64, 1, [&](int64_t, int64_t, int outer) {
    for (const int64_t n : {int64_t{1}, int64_t{9}})
      pool.parallel_for(n, 2, [&](int64_t b, int64_t e, int inner) {
        strange += inner != outer;
        visited += static_cast<int>(e - b);
      });
    std::this_thread::yield();  // let the others claim some
  });
  CHECK(strange == 0);
  CHECK(visited == 64 * 10);
}

TEST_CASE("many short regions in a row keep apart on more threads than cores") {
  ThreadPool pool(6);
  int64_t wrong = 0;
  std::vector<int64_t> seen(40);
  for (int64_t region = 0; region < 5000; ++region) {
    const int64_t n = 1 + region % 40;
    pool.parallel_for(n, 1 + region % 3, [&](int64_t b, int64_t e, int) {
      for (int64_t i = b; i < e; ++i) seen[static_cast<size_t>(i)] = region;
    });
    for (int64_t i = 0; i < n; ++i) wrong += seen[static_cast<size_t>(i)] != region;
    if (region % 1000 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  CHECK(wrong == 0);
}

TEST_CASE("phases of a region follow each other, empty ones are passed over, errors end it") {
  for (const int threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    int64_t wrong = 0;
    std::vector<int64_t> a(17), b(17);
    for (int64_t region = 1; region <= 2000; ++region) {
      const auto fill = [&](int64_t begin, int64_t end, int) {
        for (int64_t i = begin; i < end; ++i) a[static_cast<size_t>(i)] = region;
      };
      const auto sum = [&](int64_t, int64_t, int) { a[0] = std::accumulate(&a[0], &a[17], 0LL); };
      const auto copy = [&](int64_t begin, int64_t end, int) {
        for (int64_t i = begin; i < end; ++i) b[static_cast<size_t>(i)] = a[0];
      };
      pool.parallel_phases({{{17, 2, fill}, {0, 1, fill}, {1, 1, sum}, {17, 1, copy}}});
      for (const int64_t x : b) wrong += x != 17 * region;
    }
    CHECK(wrong == 0);
    CHECK(pool.num_regions() == (threads > 1 ? 2000 : 0));
    bool later = false;
    const auto fail = [](int64_t, int64_t, int) { throw Error(Code::kInternal, "first phase"); };
    const auto mark = [&](int64_t, int64_t, int) { later = true; };
    CHECK_THROWS_AS(pool.parallel_phases({{{3, 1, fail}, {3, 1, mark}}}), Error);
    CHECK_FALSE(later);
  }
}

TEST_CASE("random streams are independent of each other and repeatable") {
  Rng a(1, "data", 0), b(1, "data", 1), c(1, "data", 0);
  CHECK(a.next() != b.next());
  c.next();
  CHECK(a.next() == c.next());
  double sum = 0, squares = 0;
  for (int i = 0; i < 20000; ++i) {
    const double x = a.normal();
    sum += x;
    squares += x * x;
  }
  CHECK(std::abs(sum / 20000) < 0.03);
  CHECK(std::abs(squares / 20000 - 1) < 0.05);
}

TEST_CASE("an unknown option is an error with a suggestion") {
  double temperature = 1;
  OptionSet set;
  set.add("temperature", &temperature, "");
  set.set("temperature", "0.5");
  CHECK(temperature == 0.5);
  try {
    set.set("temprature", "1");
    FAIL("no error");
  } catch (const Error& e) {
    CHECK(e.hint().find("temperature") != std::string::npos);
  }
  CHECK_THROWS_AS(set.set("temperature", "warm"), Error);
}

TEST_CASE("the text of a list gives the list again, whatever commas it was set with") {
  std::vector<std::string> words;
  OptionSet set;
  set.add("words", &words, "");
  for (const char* text : {"", ",", "a", "a,", "a,,", ",a", "a,,b"}) {
    set.set("words", text);
    const std::vector<std::string> first = words;
    set.set("words", option_text(*set.find("words")));
    CHECK(words == first);
  }
}

TEST_CASE("reads past the page cache give the same bytes at any place") {
  const std::string path = "/tmp/fathom_direct_" + std::to_string(::getpid());
  Rng rng(3, "direct");
  std::string bytes(3 * kDirectAlign + 123, '\0');
  for (char& c : bytes) c = static_cast<char>(rng.below(256));
  write_file_atomic(path, bytes);
  const FileReader file(path);
  for (int i = 0; i < 200; ++i) {
    const uint64_t offset = rng.below(bytes.size());
    const uint64_t size = i == 0 ? bytes.size() - offset : rng.below(bytes.size() - offset + 1);
    std::vector<std::byte> space(size + kDirectSpace);
    const std::span<const std::byte> got = file.read_direct(offset, size, space);
    CHECK(std::string_view(reinterpret_cast<const char*>(got.data()), got.size()) ==
          std::string_view(bytes).substr(offset, size));
  }
  std::vector<std::byte> space(11 + kDirectSpace);
  CHECK_THROWS_WITH_AS(file.read_direct(bytes.size() - 10, 11, space),
                       doctest::Contains("the file ends"), Error);
  std::remove(path.c_str());
}

}  // namespace fathom
