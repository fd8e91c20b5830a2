// Collectives between the processes ("ranks") that work on one run: alone, or over a Wire such as
// MPI.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace fathom {

// Every rank calls the same functions in the same order with matching sizes. What does not match,
// and a rank that does not come within the time limit, is an Error on every rank that notices;
// afterwards only abandon() may be called. One thread.
class Comm {
 public:
  virtual ~Comm() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  bool is_first() const { return rank() == 0; }

  virtual void barrier() = 0;
  // `data` of rank `root` on every rank.
  virtual void broadcast(void* data, size_t size_bytes, int root) = 0;
  // `own` of every rank on every rank, in order of rank; the sizes may differ.
  virtual std::vector<std::string> gather(std::string_view own) = 0;
  // total = x of rank 0 + x of rank 1 + ... + x of rank count-1, added from left to right, on every
  // rank; with `add` it goes on from `total`, which is equal on all. So the bits depend on the
  // summands and not on how many ranks share them out.
  virtual void add_in_order(std::span<const float> x, int count, bool add,
                            std::span<float> total) = 0;
  // Ends the processes of all ranks, this one's too unless it is alone.
  virtual void abandon(int /*exit_code*/) noexcept {}
};

// One process.
std::unique_ptr<Comm> make_single_comm();

// `text` of rank `root` on every rank.
void broadcast_text(Comm& comm, std::string* text, int root);

}  // namespace fathom
