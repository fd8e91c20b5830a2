#include "fathom/tensor/tensor.h"

#include <doctest/doctest.h>

#include <cmath>

#include "fathom/tensor/dims.h"

namespace fathom {

TEST_CASE("e4m3 conversions are those of the specification") {
  const std::pair<float, int> cases[] = {
      {0.f, 0x00},           {1.f, 0x38},   {1.0625f, 0x38}, {1.1875f, 0x3A},
      {17.f, 0x58},          {18.f, 0x59},  {19.f, 0x5A},    {240.f, 0x77},
      {256.f, 0x78},         {432.f, 0x7E}, {440.f, 0x7E},   {447.f, 0x7E},
      {448.f, 0x7E},         {464.f, 0x7E}, {0.001f, 0x01},  {0.0009765625f, 0x00},
      {0.0029296875f, 0x02}, {-3.3f, 0xC5}};
  for (const auto& [x, bits] : cases) CHECK_MESSAGE(to_e4m3(x).bits == bits, x);
  for (int code = 0; code < 256; ++code) {
    const float x = to_float(e4m3{static_cast<uint8_t>(code)});
    if ((code & 0x7F) == 0x7F)
      CHECK(std::isnan(x));
    else
      CHECK(to_e4m3(x).bits == code);
  }
}

TEST_CASE("bf16 and f16 round to nearest even and survive a round trip") {
  for (uint32_t u = 0; u < 65536; ++u) {
    const f16 h{static_cast<uint16_t>(u)};
    const float x = to_float(h);
    if (!std::isnan(x)) REQUIRE(to_f16(x).bits == h.bits);
    const bf16 b{static_cast<uint16_t>(u)};
    if (!std::isnan(to_float(b))) REQUIRE(to_bf16(to_float(b)).bits == b.bits);
  }
  CHECK(to_f16(65520.f).bits == 0x7C00);
  CHECK(to_f16(1.00048828125f).bits == 0x3C00);  // a tie goes to even
  CHECK(to_bf16(1.00390625f).bits == 0x3F80);
  CHECK(to_bf16(1.01171875f).bits == 0x3F82);
}

TEST_CASE("the arena gives freed blocks out again and stops asking the kernel") {
  Arena arena;
  for (int round = 0; round < 3; ++round) {
    const Tensor a = empty(arena, DType::kF32, {1000, 1000});
    const Tensor b = empty(arena, DType::kF32, {17});
    CHECK(reinterpret_cast<uintptr_t>(a.view.data) % (2 << 20) == 0);
    CHECK(reinterpret_cast<uintptr_t>(b.view.data) % 64 == 0);
  }
  CHECK(arena.stats().in_use_bytes == 0);
  CHECK(arena.stats().kernel_requests == 2);
  CHECK(arena.stats().peak_bytes >= 4000000);
}

TEST_CASE("strided views address the right elements") {
  Arena arena;
  Tensor x_TZ = zeros(arena, DType::kF32, {3, 8});
  for (int i = 0; i < 24; ++i) x_TZ.as<float>()[i] = static_cast<float>(i);
  const View heads = split_dim(x_TZ, 2, 4);
  const View tail = slice(heads, 2, 1, 3);
  CHECK(tail.dim[1] == 2);
  CHECK(!tail.contiguous());
  Tensor dense = empty(arena, DType::kF64, {3, 2, 3});
  convert(tail, dense);
  CHECK(get_element(dense, 0) == 1);
  CHECK(get_element(dense, 3) == 5);
  CHECK(get_element(dense, 17) == 23);
}

TEST_CASE("a name with the wrong shape letters is reported with both sizes") {
  Arena arena;
  const Tensor q_TH = zeros(arena, DType::kF32, {2, 3}), k_TH = zeros(arena, DType::kF32, {2, 4});
  Dims d("test");
  try {
    FM_DIMS(d, q_TH, k_TH);
    FAIL("no error");
  } catch (const Error& e) {
    CHECK(std::string(e.what()).find("H is 4, but 3 elsewhere") != std::string::npos);
  }
  Dims empty_batch("test");
  const Tensor a_T = zeros(arena, DType::kF32, {0}), b_T = zeros(arena, DType::kF32, {1});
  CHECK_THROWS_AS(FM_DIMS(empty_batch, a_T, b_T), Error);
}

}  // namespace fathom
