// FP8 simulation: every golden byte, the reference, and the properties of model spec 4.2.
#include "fathom/kernels/cpu/simd/kernel_testing.h"
#include "fathom/tensor/safetensors.h"

namespace fathom {
namespace {

using testing::Call;
using testing::check_kernel;
using testing::Field;
using testing::for_each_target;

struct Quantised {
  std::vector<float> y, scales;
  std::vector<uint8_t> codes;
};

Quantised quantise(const Kernels& k, const View& x, ScaleFormat format) {
  ThreadPool pool(2);
  Arena arena;
  const int64_t T = x.dim[0], D = x.dim[1], groups = (D + 127) / 128;
  Quantised q{std::vector<float>(static_cast<size_t>(T * D)),
              std::vector<float>(static_cast<size_t>(T * groups)),
              std::vector<uint8_t>(static_cast<size_t>(T * D))};
  k.act_quant({&pool, &arena}, {.x = x,
                                .format = format,
                                .y = make_view(q.y.data(), DType::kF32, {T, D}),
                                .codes = make_view(q.codes.data(), DType::kE4M3, {T, D}),
                                .scales = make_view(q.scales.data(), DType::kF32, {T, groups})});
  return q;
}

// Both tables, and the vector table under every instruction set.
template <class F>
void for_each_backend(const F& f) {
  f(cpu_ref());
  for_each_target([&] { f(cpu_simd()); });
}

bool equal(const void* got, const View& want) {
  return std::memcmp(got, want.data, static_cast<size_t>(want.size_bytes())) == 0;
}

TEST_CASE("act_quant gives the golden bytes, scales and values") {
  const SafetensorsFile file("tests/golden/fp8-units/expected.safetensors");
  for_each_backend([&](const Kernels& k) {
    for (const bool power : {false, true}) {
      const std::string name = power ? "act.ue8m0" : "act.f32";
      const Quantised q =
          quantise(k, file.tensor("act.x"), power ? ScaleFormat::kUe8m0 : ScaleFormat::kF32);
      CHECK(equal(q.codes.data(), file.tensor(name + ".bytes")));
      CHECK(equal(q.scales.data(), file.tensor(name + ".scale")));
      CHECK(equal(q.y.data(), file.tensor(name + ".dequant")));
    }
  });
}

TEST_CASE("bf16, Hadamard, bf16, quantise give the golden indexer bytes") {
  const SafetensorsFile file("tests/golden/fp8-units/expected.safetensors");
  ThreadPool pool(1);
  Arena arena;
  const Exec exec{&pool, &arena};
  for_each_backend([&](const Kernels& k) {
    for (const std::string name : {"indexer.q", "indexer.k"}) {
      const Tensor x = file.tensor(name);
      const int64_t rows = x.view.numel() / 128;
      std::vector<float> v(x.as<float>(), x.as<float>() + x.view.numel());
      const View view = make_view(v.data(), DType::kF32, {rows, 128});
      k.round_bf16(exec, {.x = view, .y = view});
      k.hadamard(exec, {.x = view, .y = view});
      k.round_bf16(exec, {.x = view, .y = view});
      CHECK(equal(v.data(), file.tensor(name + "_hadamard_bf16")));
      const Quantised q = quantise(k, view, ScaleFormat::kUe8m0);
      CHECK(equal(q.codes.data(), file.tensor(name + "_bytes")));
      CHECK(equal(q.scales.data(), file.tensor(name + "_scale")));
    }
  });
}

TEST_CASE("e4m3 conversions equal the golden ones, and 256 codes survive a round trip") {
  const SafetensorsFile file("tests/golden/fp8-units/expected.safetensors");
  const Tensor in = file.tensor("e4m3.in"), out = file.tensor("e4m3.out"),
               table = file.tensor("e4m3.table");
  for (int64_t i = 0; i < in.view.numel(); ++i)
    CHECK(to_e4m3(in.as<float>()[i]).bits == out.as<e4m3>()[i].bits);
  for (int code = 0; code < 256; ++code) {
    const e4m3 c{static_cast<uint8_t>(code)};
    if ((code & 0x7F) == 0x7F) {
      CHECK(std::isnan(to_float(c)));
      continue;
    }
    CHECK(static_cast<double>(to_float(c)) == table.as<double>()[code]);
    CHECK(to_e4m3(to_float(c)).bits == code);
  }
}

TEST_CASE(
    "vector conversion to e4m3 equals the scalar one on ties, small numbers, overflow and NaN") {
  // Scale 1 (amax 448), so that codes show the conversion itself.
  std::vector<float> x;
  for (int i = 0; i < 4096; ++i)
    x.push_back(std::bit_cast<float>(0x39800000u + static_cast<uint32_t>(i) * 0x2A00u));
  for (const float v :
       {0.0f, -0.0f, 1.0625f, 1.1875f, 17.0f, 432.0f, 448.0f, 0x1p-9f, 0x1p-10f, 0x1.8p-9f, -3.3f})
    x.push_back(v);
  x.resize((x.size() + 126) / 127 * 127);
  std::vector<float> rows;
  for (size_t i = 0; i < x.size(); ++i) {
    if (i % 127 == 0) rows.push_back(448);
    rows.push_back(std::clamp(i % 3 == 0 ? -x[i] : x[i], -448.0f, 448.0f));
  }
  rows[5] = NAN;
  const View view =
      make_view(rows.data(), DType::kF32, {static_cast<int64_t>(rows.size()) / 128, 128});
  const Quantised want = quantise(cpu_ref(), view, ScaleFormat::kF32);
  for (size_t i = 0; i < rows.size(); ++i) CHECK(want.codes[i] == to_e4m3(rows[i]).bits);
  for_each_target([&] {
    const Quantised got = quantise(cpu_simd(), view, ScaleFormat::kF32);
    CHECK(got.codes == want.codes);
    for (size_t i = 0; i < rows.size(); ++i)
      CHECK((got.y[i] == want.y[i] || (std::isnan(got.y[i]) && std::isnan(rows[i]))));
  });
}

TEST_CASE("simd act_quant: strided rows, partial groups, in place") {
  for (const ScaleFormat format : {ScaleFormat::kF32, ScaleFormat::kUe8m0}) {
    const auto run = [&](const Call& c) {
      Field x(c.T, c.D, 1, 5), y(c.T, c.D, 0);
      c.k.act_quant(c.exec,
                    {.x = x.view(c.begin, c.rows), .format = format, .y = y.view(c.begin, c.rows)});
      c.k.act_quant(c.exec,
                    {.x = x.view(c.begin, c.rows), .format = format, .y = x.view(c.begin, c.rows)});
      for (int64_t t = c.begin; t < c.begin + c.rows; ++t) CHECK(x.row_is(t, y));
      return std::vector{y};
    };
    check_kernel(run, {.tolerance = 0, .widths = {0, 1, 15, 17, 127, 128, 129, 300}});
  }
}

TEST_CASE("quantising twice with power-of-two scales changes nothing") {
  Field x(40, 300, 1, 7);
  std::vector<float> dense;
  for (int64_t t = 0; t < 40; ++t)
    for (int64_t i = 0; i < 300; ++i)
      dense.push_back(x.at(t, i) * std::ldexp(1.0f, static_cast<int>(t) - 30));
  for_each_backend([&](const Kernels& k) {
    const Quantised once =
        quantise(k, make_view(dense.data(), DType::kF32, {40, 300}), ScaleFormat::kUe8m0);
    const Quantised twice =
        quantise(k, make_view(once.y.data(), DType::kF32, {40, 300}), ScaleFormat::kUe8m0);
    CHECK(twice.y == once.y);
    for (const float s : once.scales) CHECK(std::bit_cast<uint32_t>(s) % (1u << 23) == 0);
  });
}

TEST_CASE("vector test of model spec 4.2") {
  std::vector<float> x;
  for (int i = 0; i < 128; ++i)
    x.push_back(to_float(to_bf16(static_cast<float>(3 * std::sin(0.7 * i)))));
  for_each_backend([&](const Kernels& k) {
    const Quantised q =
        quantise(k, make_view(x.data(), DType::kF32, {1, 128}), ScaleFormat::kUe8m0);
    CHECK(q.scales[0] == 0.0078125f);
    const uint8_t first[8] = {0x00, 0x77, 0x7C, 0x7A, 0x70, 0xF0, 0xFA, 0xFC};
    CHECK(std::memcmp(q.codes.data(), first, 8) == 0);
    int bytes = 0;
    double values = 0;
    for (size_t i = 0; i < 128; ++i) {
      bytes += q.codes[i];
      values += static_cast<double>(q.y[i]);
    }
    CHECK(bytes == 21975);
    CHECK(values == 2.63671875);
  });
}

TEST_CASE("scales of the table in model spec 4.2") {
  const float amax[] = {448, 896, 900, 7, 3.7f, 1, 0.5f, 1e-4f, 0};
  const float want[] = {1, 2, 4, 0x1p-6f, 0x1p-6f, 0x1p-8f, 0x1p-9f, 0x1p-22f, 0x1p-22f};
  for_each_backend([&](const Kernels& k) {
    for (size_t i = 0; i < 9; ++i)
      CHECK(quantise(k, make_view(&amax[i], DType::kF32, {1, 1}), ScaleFormat::kUe8m0).scales[0] ==
            want[i]);
  });
}

TEST_CASE("simd hadamard and round_bf16") {
  check_kernel(
      [](const Call& c) {
        Field x(c.T, c.D, 1), y(c.T, c.D, 0);
        c.k.hadamard(c.exec, {.x = x.view(c.begin, c.rows), .y = y.view(c.begin, c.rows)});
        return std::vector{y};
      },
      {.tolerance = 5e-7, .widths = {1, 2, 8, 16, 32, 128, 256}});
  check_kernel(
      [](const Call& c) {
        Field x(c.T, c.D, 1), y(c.T, c.D, 0);
        c.k.round_bf16(c.exec, {.x = x.view(c.begin, c.rows), .y = y.view(c.begin, c.rows)});
        return std::vector{y};
      },
      {.tolerance = 0, .widths = {0, 1, 15, 16, 17, 33, 100}});
}

TEST_CASE("round_bf16 takes infinities, NaN, ties and zeros") {
  ThreadPool pool(1);
  Arena arena;
  const std::vector<uint32_t> bits = {0x7F800000, 0xFF800000, 0x7F800001, 0xFFC00000,
                                      0x7F7FFFFF, 0x3F808000, 0x3F818000, 0x00000000,
                                      0x80000000, 0x00008001, 0x3F807FFF};
  for_each_backend([&](const Kernels& k) {
    std::vector<float> x(bits.size());
    std::memcpy(x.data(), bits.data(), bits.size() * 4);
    const View v = make_view(x.data(), DType::kF32, {1, static_cast<int64_t>(x.size())});
    k.round_bf16({&pool, &arena}, {.x = v, .y = v});
    for (size_t i = 0; i < bits.size(); ++i) {
      CHECK((std::bit_cast<uint32_t>(x[i]) & 0xFFFFu) == 0u);
      CHECK(to_bf16(x[i]).bits == to_bf16(std::bit_cast<float>(bits[i])).bits);
    }
  });
}

TEST_CASE("hadamard is its own inverse") {
  ThreadPool pool(1);
  Arena arena;
  Field x(3, 128, 1), y(3, 128, 0);
  for_each_backend([&](const Kernels& k) {
    k.hadamard({&pool, &arena}, {.x = x.view(), .y = y.view()});
    CHECK(testing::worst_error(y, x) > 0.1);
    k.hadamard({&pool, &arena}, {.x = y.view(), .y = y.view()});
    CHECK(testing::worst_error(y, x) < 1e-6);
  });
}

}  // namespace
}  // namespace fathom
