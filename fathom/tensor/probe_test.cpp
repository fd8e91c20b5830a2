#include "fathom/tensor/probe.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <cmath>
#include <string>

namespace fathom {
namespace {

std::string temporary(const char* name) {
  return "/tmp/fathom_probe_" + std::to_string(::getpid()) + "_" + name;
}

}  // namespace

TEST_CASE("a probe keeps converted copies under their names, repeats apart") {
  MemoryProbe probe;
  float x[6] = {1, 2, 3, 4, 5, 6};
  const View strided = slice(make_view(x, DType::kF32, {2, 3}), 1, 1, 2);
  probe.put("x", strided);
  x[1] = 20;
  probe.put("x", strided);
  const bf16 h[2] = {to_bf16(0.5f), to_bf16(-2.f)};
  probe.put("h", make_view(h, DType::kBF16, {2}));
  const uint8_t mask[3] = {0, 1, 255};
  probe.put("mask", make_view(mask, DType::kU8, {3, 1}));
  const double loss = 1.0 / 3;
  probe.put("loss", make_view(&loss, DType::kF64, {}));
  REQUIRE(probe.find("x"));
  CHECK(get_element(*probe.find("x"), 0) == 2);
  CHECK(get_element(*probe.find("x"), 3) == 6);
  CHECK(get_element(*probe.find("x@1"), 0) == 20);
  CHECK(probe.find("h")->as<float>()[1] == -2);
  CHECK(probe.find("mask")->as<int64_t>()[2] == 255);
  CHECK(*probe.find("loss")->as<double>() == loss);
  CHECK(probe.find("y") == nullptr);
  const std::string path = temporary("dump");
  probe.write(path);
  const SafetensorsFile file(path);
  CHECK(file.entries().size() == 5);
  CHECK(file.entries()[1].name == "x@1");
  CHECK(get_element(file.tensor("loss"), 0) == loss);
  CHECK(!first_difference(path, path));
  probe.clear();
  CHECK(probe.tensors().empty());
  ::unlink(path.c_str());
}

TEST_CASE("the first difference names tensor, coordinates and both values") {
  const std::string a = temporary("a"), b = temporary("b");
  const auto write = [](const std::string& path, float changed, const char* last, int64_t width) {
    MemoryProbe probe;
    const float same[2] = {0, NAN};
    float x[6] = {1, 2, 3, 4, changed, 6};
    probe.put("same", make_view(same, DType::kF32, {2}));
    probe.put("x", make_view(x, DType::kF32, {6 / width, width}));
    probe.put(last, make_view(same, DType::kF32, {2}));
    probe.write(path);
  };
  write(a, 5, "end", 3);
  write(b, 5.5f, "end", 3);
  const auto d = first_difference(a, b);
  REQUIRE(d);
  CHECK(d->name == "x");
  CHECK(d->index == std::vector<int64_t>{1, 1});
  CHECK(d->a == 5);
  CHECK(d->b == 5.5);
  CHECK(d->describe() == "x[1, 1]: 5 and 5.5, largest difference 0.5");
  CHECK(!first_difference(a, b, 0.1));
  CHECK(first_difference(a, b, 0.05));
  write(b, NAN, "end", 3);
  CHECK(first_difference(a, b, 1e9));
  write(b, 5, "other", 3);
  CHECK(first_difference(a, b)->describe() == "end: absent in " + b);
  write(b, 5, "end", 2);
  CHECK(first_difference(a, b)->describe() == "x: F32 [2, 3] and F32 [3, 2]");
  ::unlink(a.c_str());
  ::unlink(b.c_str());
}

}  // namespace fathom
