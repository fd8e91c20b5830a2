#include "fathom/kernels/cpu/simd/split_products.h"

#include "fathom/base/error.h"
#include "fathom/kernels/cpu/simd/amx.h"
#include "fathom/kernels/cpu/simd/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/cpu/simd/split_products.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "fathom/kernels/cpu/simd/split_feed-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom::simd {
namespace HWY_NAMESPACE {

#if HWY_TARGET == HWY_AVX3

void columns(const SplitArgs& s) {
  PairsFeed feed(s);
  feed.take(feed.work());
}
bool has_unit() { return amx_bf16(); }

#else

void columns(const SplitArgs&) { FM_CHECK(false, "no matrix unit for bf16"); }
bool has_unit() { return false; }

#endif  // HWY_AVX3

}  // namespace HWY_NAMESPACE
}  // namespace fathom::simd
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fathom::simd {

HWY_EXPORT(columns);
HWY_EXPORT(has_unit);

void split_columns(const SplitArgs& s) { HWY_DYNAMIC_DISPATCH(columns)(s); }
bool has_split_products() { return HWY_DYNAMIC_DISPATCH(has_unit)(); }

}  // namespace fathom::simd
#endif  // HWY_ONCE
