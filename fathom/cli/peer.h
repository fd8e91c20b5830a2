// Another program to measure against: a command line that prints its speed.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace fathom {

struct PeerFigure {
  bool prefill = false;     // otherwise decoding
  int64_t tokens = 0;       // of the prompt's piece, for each sequence; of decoding 0
  int64_t depth = 0;        // tokens in the cache before; -1: what it was asked for
  int64_t sequences = 1;    // in each step
  double tokens_per_s = 0;  // of all sequences
};

// The figures in the order printed: from "tokens/s median N" (of decoding), and from the rows of
// the tables that llama-bench (test names like "pp512", "tg32 @ d2048", "tg32@pp2048"),
// llama-batched-bench and llama-sweep-bench print. Other text is passed over.
std::vector<PeerFigure> parse_peer(std::string_view text);

// Runs the command by /bin/sh and reads both its streams; at least one figure. Throws Error when it
// fails, is not over after limit_s (0: no limit), or prints no figure.
std::vector<PeerFigure> run_peer(const std::string& command, double limit_s);

// What is measured at one time, and what the marks {threads}, {depth}, {prefill} and {sequences} in
// a peer's command stand for.
struct PeerRow {
  int threads = 0;
  int64_t depth = 0, prefill = 0, sequences = 1;
};
std::string fill_in(std::string command, const PeerRow& row);

struct PeerRates {  // tokens/s, one of every run
  std::vector<double> prefill, decode, sequences;
};

// Appends what belongs to the row. Throws Error, naming what there is, where nothing does.
void pick_figures(const std::vector<PeerFigure>& figures, const PeerRow& row, PeerRates* rates);

// The upper one of two in the middle; 0 of none.
double median(std::vector<double> v);

}  // namespace fathom
