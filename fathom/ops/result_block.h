// Results of an op that records nothing, in one block of memory: a decoded token asks for memory
// often enough that the requests are a part of its time.
#pragma once

#include <initializer_list>
#include <memory>
#include <utility>

#include "fathom/ops/ctx.h"

namespace fathom {

class ResultBlock {
 public:
  static constexpr int64_t kAlign = 64;
  // What `count` elements take of a block.
  static int64_t bytes(DType dtype, int64_t count) {
    return (count * dtype_bytes(dtype) + kAlign - 1) / kAlign * kAlign;
  }
  ResultBlock(const Ctx& ctx, int64_t size_bytes)
      : owner_(ctx.arena.allocate(size_bytes)), at_(owner_.get()), left_(size_bytes) {}

  // The next tensor, uninitialised; it keeps the whole block.
  Tensor tensor(DType dtype, std::initializer_list<int64_t> dims) {
    const View v = take(dtype, dims);
    return {v, owner_};
  }
  Value value(DType dtype, std::initializer_list<int64_t> dims) {
    const View v = take(dtype, dims);
    return {v, std::shared_ptr<Node>(owner_, nullptr)};
  }

 private:
  View take(DType dtype, std::initializer_list<int64_t> dims) {
    const View v = make_view(at_, dtype, dims);
    const int64_t size = bytes(dtype, v.numel());
    FM_CHECK(size <= left_, "{} bytes of a block with {} left", size, left_);
    at_ += size, left_ -= size;
    return v;
  }

  std::shared_ptr<std::byte> owner_;
  std::byte* at_;
  int64_t left_;
};

}  // namespace fathom
