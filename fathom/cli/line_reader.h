// Lines from standard input, where a signal ends the waiting.
#pragma once

#include <cstdint>
#include <string>

namespace fathom {

class LineReader {
 public:
  enum class Outcome : uint8_t { kLine, kEnd, kInterrupted };
  // A line without its end; one that ends in a backslash goes on in the next. kInterrupted: a
  // signal came, what was typed of the line is forgotten.
  Outcome read(std::string* line);

 private:
  Outcome read_one(std::string* line);
  std::string buffer_;
  bool ended_ = false;
};

}  // namespace fathom
