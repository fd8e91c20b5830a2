// Training text from files. A .jsonl file holds one record per line, a document or a chat; any
// other file is one document.
//   {"text": "..."}
//   {"messages": [{"role": "user", "content": "..."},
//                 {"role": "assistant", "reasoning_content": "...", "content": "..."}]}
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "fathom/base/file.h"

namespace fathom {

enum class Speaker : uint8_t { kSystem, kUser, kAssistant };

struct ChatTurn {
  Speaker role = Speaker::kUser;
  std::string content;
  std::string thinking;  // reasoning_content of an assistant turn
  bool has_thinking = false;
};

struct Record {
  std::string text;            // of a document
  std::vector<ChatTurn> chat;  // not empty for a chat
  bool is_chat() const { return !chat.empty(); }
};

// One line of a .jsonl file. `what` names file and line in errors. Throws Error for anything but
// the two forms above, for roles out of order (system?, then user and assistant in turn, the last
// an assistant) and for unknown keys of a message, which would else be lost in silence.
Record parse_record(std::string_view line, const std::string& what);

// Reads a file piece by piece; the file is mapped, not loaded.
class RecordReader {
 public:
  explicit RecordReader(const std::string& path);  // throws Error

  // Raw lines (whole file when not .jsonl) for parsing elsewhere; false at the end. Blank lines are
  // skipped. The view lives as long as the reader.
  bool next_line(std::string_view& line);
  bool next(Record& record);  // throws Error
  Record parse(std::string_view line, uint64_t line_number) const;
  uint64_t line_number() const { return line_number_; }  // of the last line, from 1
  uint64_t size_bytes() const { return file_.bytes().size(); }

 private:
  MappedFile file_;
  std::string_view rest_;
  uint64_t line_number_ = 0;
  bool is_jsonl_ = false;
};

}  // namespace fathom
