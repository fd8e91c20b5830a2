#include "fathom/tensor/arena.h"

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <mutex>
#include <thread>
#include <vector>

#include "fathom/base/error.h"

namespace fathom {
namespace {

constexpr int64_t kHugePage = int64_t{2} << 20;
constexpr int64_t kLarge = kHugePage / 2;  // from here on a block has its own map
constexpr int64_t kSmall = 32 * 1024;      // up to here a block holds its owners' counters as well

// Size classes: four steps per power of two, so at most a quarter is wasted.
int64_t size_class(int64_t n) {
  n = std::max<int64_t>(n, 64);
  const int64_t power = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(n)));
  const int64_t step = std::max<int64_t>(power / 4, 64);
  return (n + step - 1) / step * step;
}

// Each class of size_class has one.
size_t class_index(int64_t size) {
  const auto n = static_cast<size_t>(size), power = std::bit_floor(n);
  return 4 * static_cast<size_t>(std::bit_width(n)) + (n - power) * 4 / power;
}

std::byte* map_huge(int64_t size) {
  const int64_t total = size + kHugePage;
  void* p = ::mmap(nullptr, static_cast<size_t>(total), PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED)
    throw Error(Code::kExhausted,
                fmt::format("cannot take {} bytes of memory from the system", size),
                "use a smaller batch, context or model");
  const auto address = reinterpret_cast<uintptr_t>(p);
  const uintptr_t aligned = (address + kHugePage - 1) / kHugePage * kHugePage;
  const auto head = aligned - address;
  if (head) ::munmap(p, head);
  const auto tail = static_cast<uintptr_t>(kHugePage) - head;
  if (tail) ::munmap(reinterpret_cast<void*>(aligned + static_cast<uintptr_t>(size)), tail);
  ::madvise(reinterpret_cast<void*>(aligned), static_cast<size_t>(size), MADV_HUGEPAGE);
  return reinterpret_cast<std::byte*>(aligned);
}

// A decoded token asks hundreds of times and a mutex costs more than the request, so it spins.
class SpinLock {
 public:
  void lock() {
    while (held_.exchange(true, std::memory_order_acquire)) std::this_thread::yield();
  }
  void unlock() { held_.store(false, std::memory_order_release); }

 private:
  std::atomic<bool> held_{false};
};

}  // namespace

struct Arena::State {
  SpinLock lock;                                         // guards all below
  std::array<std::vector<std::byte*>, 256> free_blocks;  // by class_index
  std::vector<std::pair<std::byte*, int64_t>> maps;
  std::byte* slab = nullptr;  // small blocks are cut from 2 MB slabs
  int64_t slab_left = 0;
  int64_t blocks_out = 0;
  bool arena_gone = false;
  ArenaStats stats;

  ~State() {
    for (const auto& [p, size] : maps) ::munmap(p, static_cast<size_t>(size));
  }

  std::byte* take_map(int64_t size) {
    const int64_t rounded = (size + 4095) / 4096 * 4096;
    std::byte* p = map_huge(rounded);
    maps.emplace_back(p, rounded);
    stats.reserved_bytes += rounded;
    ++stats.kernel_requests;
    return p;
  }

  std::byte* new_block(int64_t size) {
    if (size >= kLarge) return take_map(size);
    if (slab_left < size) {
      slab = take_map(kHugePage);
      slab_left = kHugePage;
    }
    std::byte* p = slab;
    slab += size;
    slab_left -= size;
    return p;
  }

  std::byte* take(int64_t size) {
    const std::lock_guard guard(lock);
    std::vector<std::byte*>& list = free_blocks[class_index(size)];
    std::byte* p = nullptr;
    if (list.empty()) {
      p = new_block(size);
    } else {
      p = list.back();
      list.pop_back();
    }
    stats.in_use_bytes += size;
    stats.peak_bytes = std::max(stats.peak_bytes, stats.in_use_bytes);
    ++blocks_out;
    return p;
  }

  static void give_back(State* state, std::byte* p, int64_t size) {
    bool last = false;
    {
      const std::lock_guard guard(state->lock);
      state->stats.in_use_bytes -= size;
      state->free_blocks[class_index(size)].push_back(p);
      last = --state->blocks_out == 0 && state->arena_gone;
    }
    if (last) delete state;
  }

  // Where the counters of a small block's owners are kept: in front of its bytes, which saves a
  // request to malloc. The block is free when they are no longer needed.
  static constexpr int64_t kHead = 64;
  template <class T>
  struct Head {
    using value_type = T;
    State* state;
    std::byte* block;
    int64_t size;
    Head(State* s, std::byte* b, int64_t n) : state(s), block(b), size(n) {}
    template <class U>
    Head(const Head<U>& other)  // NOLINT: allocators convert
        : state(other.state), block(other.block), size(other.size) {}
    T* allocate(size_t n) {
      static_assert(sizeof(T) <= kHead && alignof(T) <= kHead);
      FM_CHECK(n == 1, "{} heads", n);
      return reinterpret_cast<T*>(block);
    }
    void deallocate(T*, size_t) { give_back(state, block, size); }
    friend bool operator==(const Head& a, const Head& b) { return a.block == b.block; }
  };
  struct Nothing {
    void operator()(std::byte*) const {}
  };
};

Arena::Arena() : state_(new State) {}

Arena::~Arena() {
  bool last = false;
  {
    const std::lock_guard guard(state_->lock);
    state_->arena_gone = true;
    last = state_->blocks_out == 0;
  }
  if (last) delete state_;
}

std::shared_ptr<std::byte> Arena::allocate(int64_t size_bytes) {
  FM_CHECK(size_bytes >= 0, "size {}", size_bytes);
  if (const int64_t size = size_class(size_bytes + State::kHead); size <= kSmall) {
    std::byte* p = state_->take(size);
    return {p + State::kHead, State::Nothing(), State::Head<std::byte>(state_, p, size)};
  }
  const int64_t size = size_class(size_bytes);
  std::byte* p = state_->take(size);
  return {p, [state = state_, size](std::byte* q) { State::give_back(state, q, size); }};
}

ArenaStats Arena::stats() const {
  const std::lock_guard guard(state_->lock);
  return state_->stats;
}

}  // namespace fathom
