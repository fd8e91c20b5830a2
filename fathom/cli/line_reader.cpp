#include "fathom/cli/line_reader.h"

#include <unistd.h>

#include <array>
#include <cerrno>

namespace fathom {

LineReader::Outcome LineReader::read_one(std::string* line) {
  for (;;) {
    const size_t end = buffer_.find('\n');
    if (end != buffer_.npos) {
      *line = buffer_.substr(0, end);
      buffer_.erase(0, end + 1);
      return Outcome::kLine;
    }
    if (ended_) {
      *line = std::move(buffer_);
      buffer_.clear();
      return line->empty() ? Outcome::kEnd : Outcome::kLine;
    }
    std::array<char, 4096> piece;
    const ssize_t n = ::read(STDIN_FILENO, piece.data(), piece.size());
    if (n > 0) {
      buffer_.append(piece.data(), static_cast<size_t>(n));
    } else if (n < 0 && errno == EINTR) {
      buffer_.clear();
      return Outcome::kInterrupted;
    } else {
      ended_ = true;
    }
  }
}

LineReader::Outcome LineReader::read(std::string* line) {
  line->clear();
  for (std::string part;;) {
    const Outcome outcome = read_one(&part);
    if (outcome == Outcome::kInterrupted) return outcome;
    if (outcome == Outcome::kEnd) return line->empty() ? outcome : Outcome::kLine;
    *line += part;
    if (!line->ends_with('\\')) return Outcome::kLine;
    line->back() = '\n';
  }
}

}  // namespace fathom
