// Numbers, texts and lists as bytes, little endian, for records on disk and messages between
// processes.
#pragma once

#include <fmt/core.h>

#include <bit>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "fathom/base/error.h"

namespace fathom {

static_assert(std::endian::native == std::endian::little);

class ByteWriter {
 public:
  template <class T>
  void number(T value) {
    static_assert(std::is_arithmetic_v<T>);
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  template <class T>
  void list(const std::vector<T>& values) {
    number(uint64_t{values.size()});
    bytes_.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
  }
  void text(std::string_view s) {
    number(uint64_t{s.size()});
    bytes_.append(s);
  }
  const std::string& bytes() const { return bytes_; }
  std::string take() { return std::move(bytes_); }

 private:
  std::string bytes_;
};

// Reads what a ByteWriter wrote. The bytes must outlive it.
class ByteReader {
 public:
  // what: their source; expected: "a rollout record". Both for messages.
  ByteReader(std::string_view bytes, std::string what, std::string expected)
      : rest_(bytes), what_(std::move(what)), expected_(std::move(expected)) {}

  template <class T>
  T number() {
    static_assert(std::is_arithmetic_v<T>);
    T value;
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return value;
  }
  template <class T>
  std::vector<T> list() {
    const auto n = number<uint64_t>();
    if (n > rest_.size() / sizeof(T)) damaged(fmt::format("a list of {} entries", n));
    std::vector<T> values(static_cast<size_t>(n));
    if (n > 0) std::memcpy(values.data(), take(n * sizeof(T)).data(), n * sizeof(T));
    return values;
  }
  std::string text() { return std::string(take(number<uint64_t>())); }
  bool done() const { return rest_.empty(); }

  // Throws Error (kDataLoss).
  [[noreturn]] void damaged(const std::string& found) const {
    throw Error(Code::kDataLoss, fmt::format("{}: expected {}, found {}", what_, expected_, found),
                "the bytes are damaged; what was written before them can still be read");
  }

 private:
  std::string_view take(uint64_t n) {
    if (n > rest_.size())
      damaged(fmt::format("{} bytes where {} more are needed", rest_.size(), n));
    const std::string_view out = rest_.substr(0, static_cast<size_t>(n));
    rest_.remove_prefix(static_cast<size_t>(n));
    return out;
  }
  std::string_view rest_;
  std::string what_, expected_;
};

// A struct of numbers, lists and such structs as bytes: it has
//   template <class F> void each(F&& f) { f(a); f(b); ... }
// over its fields. put(x) and get(y) leave y with the bits of x.
template <class T>
void put(ByteWriter& out, const T& x) {
  if constexpr (std::is_arithmetic_v<T>) {
    out.number(x);
  } else if constexpr (requires { x.size(); }) {
    out.number(uint64_t{x.size()});
    for (const auto& one : x) put(out, one);
  } else {
    const_cast<T&>(x).each([&](const auto& field) { put(out, field); });
  }
}

template <class T>
void get(ByteReader& in, T& x) {
  if constexpr (std::is_arithmetic_v<T>) {
    x = in.number<T>();
  } else if constexpr (requires { x.size(); }) {
    x.clear();
    for (auto left = in.number<uint64_t>(); left > 0; --left) get(in, x.emplace_back());
  } else {
    x.each([&](auto& field) { get(in, field); });
  }
}

}  // namespace fathom
