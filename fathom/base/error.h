// The three kinds of failure: InternalError (a programmer's), Error (the call cannot go on), Result
// (a normal outcome).
#pragma once

#include <fmt/core.h>

#include <cstdint>
#include <exception>
#include <source_location>
#include <string>
#include <utility>
#include <variant>

namespace fathom {

enum class Code : uint8_t {
  kInvalidArgument,
  kNotFound,
  kUnavailable,
  kExhausted,
  kTimeout,
  kCancelled,
  kDataLoss,
  kInternal,
};

const char* code_name(Code code);

// Thrown at load and API borders. `message` says what was expected and what came, `hint` what to
// do.
class Error : public std::exception {
 public:
  Error(Code code, std::string message, std::string hint = "");
  Code code() const noexcept { return code_; }
  const std::string& message() const noexcept { return message_; }
  const std::string& hint() const noexcept { return hint_; }
  const char* what() const noexcept override { return what_.c_str(); }

 private:
  Code code_;
  std::string message_, hint_, what_;
};

// A broken promise inside the program. Carries file, line and the values.
class InternalError : public Error {
 public:
  InternalError(const char* condition, const std::string& values, std::source_location where);
};

// Value or Error, for outcomes that are part of normal work.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : v_(std::in_place_index<0>, std::move(value)) {}  // NOLINT: implicit by design
  Result(Error error) : v_(std::in_place_index<1>, std::move(error)) {}  // NOLINT
  bool has_value() const noexcept { return v_.index() == 0; }
  explicit operator bool() const noexcept { return has_value(); }
  T& operator*() & { return *std::get_if<0>(&v_); }
  const T& operator*() const& { return *std::get_if<0>(&v_); }
  T&& operator*() && { return std::move(*std::get_if<0>(&v_)); }
  T* operator->() { return std::get_if<0>(&v_); }
  const T* operator->() const { return std::get_if<0>(&v_); }
  const Error& error() const { return *std::get_if<1>(&v_); }
  T value_or(T other) && { return has_value() ? std::move(**this) : std::move(other); }
  // The value, or throws the error.
  T value() && {
    if (!has_value()) throw error();
    return std::move(**this);
  }

 private:
  std::variant<T, Error> v_;
};

#define FM_TRY(var, expr)                         \
  auto var##_result = (expr);                     \
  if (!var##_result) return var##_result.error(); \
  auto&& var = *std::move(var##_result)

// Always on. FM_CHECK(rows > 0, "rows is {}", rows);
#define FM_CHECK(cond, ...)                                            \
  do {                                                                 \
    if (!(cond)) [[unlikely]]                                          \
      throw ::fathom::InternalError(#cond, ::fmt::format(__VA_ARGS__), \
                                    std::source_location::current());  \
  } while (0)

}  // namespace fathom
