// The progress line of long work, on stderr: redrawn in place on a terminal, a plain line every few
// seconds elsewhere.
#pragma once

#include <cstdint>
#include <cstdio>
#include <deque>
#include <string>
#include <string_view>

namespace fathom {

struct ProgressState {
  std::string_view what;  // "pretrain"
  int64_t done = 0;
  int64_t total = 0;        // 0: unknown
  double rate = 0;          // units per second; 0: not known yet
  std::string_view unit;    // "tok"
  std::string_view detail;  // "loss 2.314"
  double left_s = -1;       // negative: unknown
  uint64_t memory_bytes = 0;
};

// "pretrain 120/500 24% | 11.9k tok/s | loss 2.314 | 3:12 left | 1.2 GiB"
std::string progress_line(const ProgressState& state);
std::string human_duration(double seconds);  // "48 s", "3:12", "1:02:09"
std::string human_count(double count);       // "950", "11.9k", "3.40M"

class Progress {
 public:
  // Work of `total` steps (0: unknown) whose rate is given in `unit`s per second. `what` comes
  // first in the line.
  Progress(std::string what, int64_t total, std::string unit, FILE* out = stderr);
  ~Progress();  // finish()
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // `done` steps are finished, in which `amount` units were handled so far. Cheap enough for every
  // step: it draws at most ten times a second on a terminal, every five seconds elsewhere. Work
  // resumed in the middle starts with a call that gives its first `done` and `amount`.
  void update(int64_t done, double amount, std::string_view detail = "");

  void clear();   // wipes the line before something else is printed; the next update draws it again
  void finish();  // draws the last state, ends the line

 private:
  struct Moment {
    double time_s;
    int64_t done;
    double amount;
  };
  void draw(double time_s);

  std::string what_, unit_, detail_;
  int64_t total_;
  FILE* out_;
  bool terminal_;
  bool on_line_ = false, stale_ = false;
  double drawn_s_ = 0;
  std::deque<Moment> window_;  // the last seconds, for the rate
};

}  // namespace fathom
