#include "fathom/base/error.h"

#include <fmt/core.h>

namespace fathom {

const char* code_name(Code code) {
  switch (code) {
    case Code::kInvalidArgument:
      return "invalid argument";
    case Code::kNotFound:
      return "not found";
    case Code::kUnavailable:
      return "unavailable";
    case Code::kExhausted:
      return "exhausted";
    case Code::kTimeout:
      return "timeout";
    case Code::kCancelled:
      return "cancelled";
    case Code::kDataLoss:
      return "data loss";
    case Code::kInternal:
      return "internal error";
  }
  return "unknown";
}

Error::Error(Code code, std::string message, std::string hint)
    : code_(code), message_(std::move(message)), hint_(std::move(hint)) {
  what_ = hint_.empty() ? message_ : fmt::format("{}; {}", message_, hint_);
}

InternalError::InternalError(const char* condition, const std::string& values,
                             std::source_location where)
    : Error(Code::kInternal, fmt::format("{}:{}: check failed: {}: {}", where.file_name(),
                                         where.line(), condition, values)) {}

}  // namespace fathom
