#include "fathom/kernels/cpu/simd/index_codes.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "fathom/kernels/cpu/simd/amx.h"
#include "fathom/kernels/cpu/simd/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/cpu/simd/index_codes.cpp"
#include "hwy/cache_control.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "fathom/kernels/cpu/ref/attention_rows.h"
#include "fathom/kernels/cpu/simd/byte_dots-inl.h"
#include "fathom/kernels/cpu/simd/vec16-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom::simd {
namespace HWY_NAMESPACE {
namespace {

using bytes::Codes;
using bytes::Dot;
using bytes::VI;

struct I16x {  // sixteen i32
  VI v[kVecsOf16];
};

#define FATHOM_VECS _Pragma("GCC unroll 16") for (int i = 0; i < kVecsOf16; ++i)

// ---- coding -------------------------------------------------------------------------------------

// Sums and differences of lanes `step` apart, step < 16.
HWY_INLINE V16 butterfly(V16 x, int step) {
  V16 out;
#if HWY_TARGET == HWY_SCALAR
  for (int i = 0; i < 16; ++i)
    out.v[i] = i & step ? hn::Sub(x.v[i ^ step], x.v[i]) : hn::Add(x.v[i], x.v[i ^ step]);
#else
  const D16 d;
  if (step >= kLanesOf16) {
    const int apart = step / kLanesOf16;
    for (int i = 0; i < kVecsOf16; ++i)
      out.v[i] = i & apart ? hn::Sub(x.v[i ^ apart], x.v[i]) : hn::Add(x.v[i], x.v[i ^ apart]);
    return out;
  }
  HWY_ALIGN int32_t upper[kLanesOf16];
  for (int i = 0; i < kLanesOf16; ++i) upper[i] = i & step ? -1 : 0;
  const auto is_upper = hn::MaskFromVec(hn::BitCast(d, hn::Load(DI16(), upper)));
  FATHOM_VECS {
    auto other = step == 1 ? hn::Shuffle2301(x.v[i]) : hn::Shuffle1032(x.v[i]);
#if FATHOM_X86_INT  // vectors of more than four lanes
    if (step == 4) other = hn::SwapAdjacentBlocks(x.v[i]);
    if (step == 8) other = hn::ConcatLowerUpper(d, x.v[i], x.v[i]);
#endif
    out.v[i] = hn::IfThenElse(is_upper, hn::Sub(other, x.v[i]), hn::Add(x.v[i], other));
  }
#endif
  return out;
}

void rotate(float* x, int64_t I) {
  for (int64_t i = 0; i < I; i += 16) {
    V16 v = load16(x + i);
    v = butterfly(butterfly(butterfly(butterfly(v, 1), 2), 4), 8);
    store16(v, x + i);
  }
  for (int64_t step = 16; step < I; step *= 2)
    for (int64_t i = 0; i < I; i += 2 * step)
      for (int64_t j = i; j < i + step; j += 16) {
        const V16 p = load16(x + j), q = load16(x + j + step);
        store16(p + q, x + j);
        store16(p - q, x + j + step);
      }
}

float code_row(float* x, int64_t I, int8_t* codes) {
  if (I < 16 || !std::has_single_bit(static_cast<uint64_t>(I)))
    return ref::code_index_row(x, I, codes);
  rotate(x, I);
  const hn::Rebind<int8_t, D16> d8;
  const hn::Rebind<int16_t, D16> d16;
  VI top = hn::Zero(DI16());  // as integers, sizes order like numbers and NaN is above all
  for (int64_t i = 0; i < I; i += kLanesOf16)
    top = hn::Max(top, hn::BitCast(DI16(), hn::Abs(hn::LoadU(D16(), x + i))));
  const int32_t bits = hn::GetLane(hn::MaxOfLanes(DI16(), top));
  const float most = std::bit_cast<float>(bits);
  const bool finite = bits < 0x7F800000;
  if (!finite || most < 1e-30f) {
    std::fill_n(codes, I, int8_t{0});
    return finite ? 0 : std::numeric_limits<float>::quiet_NaN();
  }
  const auto inverse = hn::Set(D16(), 127.0f / most);
  for (int64_t i = 0; i < I; i += kLanesOf16) {
    const VI code = hn::NearestInt(hn::Mul(hn::LoadU(D16(), x + i), inverse));
    hn::StoreU(hn::DemoteTo(d8, hn::DemoteTo(d16, code)), d8, codes + i);
  }
  return most / 127.0f;
}

// ---- scores -------------------------------------------------------------------------------------

int64_t groups_of(int64_t I) { return (I + 3) / 4; }  // of four numbers

int32_t sum_of(const int8_t* codes, int64_t n) {
  const hn::Rebind<int8_t, D16> d8;
  VI sums = hn::Zero(DI16());
  int64_t i = 0;
  for (; i + kLanesOf16 <= n; i += kLanesOf16)
    sums = hn::Add(sums, hn::PromoteTo(DI16(), hn::LoadU(d8, codes + i)));
  int32_t sum = hn::GetLane(hn::SumOfLanes(DI16(), sums));
  for (; i < n; ++i) sum += codes[i];
  return sum;
}

void code_query(float* x, float weight, int64_t row, const CodedQueries& q) {
  auto* codes = reinterpret_cast<int8_t*>(q.codes + row * query_bytes(q.I));
  const float scale = code_row(x, q.I, codes);
  const bool rotated = std::has_single_bit(static_cast<uint64_t>(q.I));
  q.weight[row] = weight * (rotated ? scale * (1 / static_cast<float>(q.I)) : scale);
  q.shift[row] = -128 * sum_of(codes, q.I);
  std::fill(codes + q.I, codes + query_bytes(q.I), int8_t{0});
}

// sum + weight * max(dot, 0)
HWY_INLINE V16 add_head(V16 sum, float weight, const I16x& dot) {
  V16 x;
  FATHOM_VECS x.v[i] = hn::ConvertTo(D16(), hn::Max(dot.v[i], hn::Zero(DI16())));
  return fused(splat(weight), x, sum);
}

// kRows heads from row `row` on, added to the sums of kPanels times 16 keys.
template <Dot kDot, int kRows, int kPanels>
HWY_INLINE void add_heads(const CodedQueries& q, int64_t row, const uint8_t* keys,
                          const uint8_t* ahead, V16 (&sum)[kPanels]) {
  const int64_t groups = groups_of(q.I), row_bytes = query_bytes(q.I);
  const std::byte* query = q.codes + row * row_bytes;
  I16x dot[kRows][kPanels];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p)
      FATHOM_VECS dot[r][p].v[i] = Codes<kDot>::first(q.shift[row + r]);
  for (int64_t g = 0; g < groups; ++g) {
    Codes<kDot> key[kPanels][kVecsOf16];
    if (ahead)
      for (int p = 0; p < kPanels; ++p) hwy::Prefetch(ahead + (p * groups + g) * 64);
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p)
      FATHOM_VECS key[p][i] = Codes<kDot>(hn::LoadU(
          DI16(), reinterpret_cast<const int32_t*>(keys + (p * groups + g) * 64) + i * kLanesOf16));
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const VI x = bytes::four_codes(query + r * row_bytes + g * 4);
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p)
        FATHOM_VECS dot[r][p].v[i] = key[p][i].add(dot[r][p].v[i], x);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) sum[p] = add_head(sum[p], q.weight[row + r], dot[r][p]);
}

template <Dot kDot>
void score_page(const CodedQueries& q, int64_t begin, int64_t end, const uint8_t* page,
                const uint8_t* next, float* out) {
  constexpr int kRows = kLanesOf16 == 16 ? 8 : 4, kPanels = kLanesOf16 == 16 ? 2 : 1;
  const auto* scales = reinterpret_cast<const float*>(page + ref::index_scales_at(q.I));
  const int64_t panel = groups_of(q.I) * 64;
  for (int64_t t = begin; t < end; ++t, out += kBlock)
    for (int p = 0; p < kBlock / 16; p += kPanels) {
      V16 sum[kPanels];
      for (V16& s : sum) s = zero16();
      int64_t j = 0;
      for (; j + kRows <= q.J; j += kRows)
        add_heads<kDot, kRows, kPanels>(q, t * q.J + j, page + p * panel,
                                        next && t == begin && j == 0 ? next + p * panel : nullptr,
                                        sum);
      for (; j < q.J; ++j)
        add_heads<kDot, 1, kPanels>(q, t * q.J + j, page + p * panel, nullptr, sum);
      for (int i = 0; i < kPanels; ++i)
        store16(load16(scales + 16 * (p + i)) * sum[i], out + 16 * (p + i));
    }
}

// f(first token, page, the one after it or null) for all pages.
template <class F>
HWY_INLINE void for_pages(PageWalk* pages, const float* out, F f) {
  PageWalk::Page page = pages->next();
  while (page.keys) {
    const PageWalk::Page next = pages->next();
    f(page.first, page.keys, next.keys);
    pages->take(page, out);
    page = next;
  }
}

template <Dot kDot>
void score(const CodedQueries& q, int64_t tokens, PageWalk* pages, float* out) {
  for_pages(pages, out, [&](int64_t begin, const uint8_t* page, const uint8_t* next) HWY_ATTR {
    score_page<kDot>(q, begin, tokens, page, next, out);
  });
}

#if HWY_TARGET == HWY_AVX3
// Asks for the lines of a page, some at a time.
struct Asker {
  const uint8_t *at, *end;
  Asker(const uint8_t* page, int64_t I) : at(page), end(page ? page + size(I) : nullptr) {}
  static int64_t size(int64_t I) { return ref::index_scales_at(I) + kBlock * 4; }
  HWY_INLINE void lines(int n) {
    for (int i = 0; i < n && at < end; ++i, at += 64) hwy::Prefetch(at);
  }
};

// Scores from the products of one token's heads, without their shifts.
HWY_INLINE void add_token(const CodedQueries& q, int64_t token, const int32_t* dot,
                          const float* scales, Asker* ask, int lines, float* out) {
  V16 a = zero16(), b = a, c = a, d = a;
  for (int64_t row = token * q.J; row < (token + 1) * q.J; ++row, dot += kBlock) {
    const VI shift = hn::Set(DI16(), q.shift[row]);
    const auto add = [&](V16 sum, int64_t at) HWY_ATTR {
      return add_head(sum, q.weight[row], {hn::Add(hn::Load(DI16(), dot + at), shift)});
    };
    ask->lines(lines);
    a = add(a, 0), b = add(b, 16), c = add(c, 32), d = add(d, 48);
  }
  store16(load16(scales) * a, out);
  store16(load16(scales + 16) * b, out + 16);
  store16(load16(scales + 32) * c, out + 32);
  store16(load16(scales + 48) * d, out + 48);
}

// Up to 16 rows (tokens times heads) with a page. Its products take a third of the time that the
// page took to come, so all that counts is that requests for the next page never pause: they are
// spread over the work. Tile loads alone are not foreseen by the processor.
void score_few(const AmxTiles& tiles, const CodedQueries& q, int64_t begin, int64_t end,
               const uint8_t* page, const uint8_t* next, float* out) {
  const auto* scales = reinterpret_cast<const float*>(page + ref::index_scales_at(q.I));
  HWY_ALIGN int32_t dots[16 * kBlock];
  Asker ask(next, q.I);  // for three quarters of the page beside the products
  tiles.multiply_16x64(reinterpret_cast<const int8_t*>(q.codes), page, q.I,
                       [&]() HWY_ATTR { ask.lines(24); });
  tiles.store_16x64(dots);
  const int64_t rows = (end - begin) * q.J;
  const auto rest = static_cast<int>((q.I / 4 + 4 + rows - 1) / rows);
  for (int64_t t = begin; t < end; ++t, out += kBlock)
    add_token(q, t, dots + t * q.J * kBlock, scales, &ask, rest, out);
}

// Sixteen rows and 64 keys at a time on the matrix unit, which works on the next tokens while this
// thread adds the heads of the last ones.
constexpr int64_t kMaxHeads = 64;

void score_many(const AmxTiles& tiles, const CodedQueries& q, int64_t begin, int64_t end,
                const uint8_t* page, const uint8_t* next, float* out) {
  const auto* scales = reinterpret_cast<const float*>(page + ref::index_scales_at(q.I));
  const auto* codes = reinterpret_cast<const int8_t*>(q.codes);
  HWY_ALIGN int32_t dots[(kMaxHeads + 15) * kBlock];
  const int64_t together = std::max<int64_t>(1, 16 / q.J);  // tokens
  const int64_t asked =
      (Asker::size(q.I) / 64 + end - begin - 1) / (end - begin);  // for each token
  Asker ask(next, q.I);
  const auto multiply = [&](int64_t row) {
    tiles.multiply_16x64(codes + row * q.I, page, q.I, [] {});
  };
  multiply(begin * q.J);
  for (int64_t t = begin; t < end; t += together) {
    const int64_t rows = std::min(together, end - t) * q.J;
    for (int64_t r = 0; r < rows; r += 16) {
      tiles.store_16x64(dots + r * kBlock);
      const int64_t next_row = t * q.J + std::min(r + 16, rows);
      if (next_row < end * q.J) multiply(next_row);
    }
    const int32_t* from = dots;
    for (int64_t n = t; n < std::min(end, t + together); ++n, from += q.J * kBlock) {
      ask.lines(static_cast<int>(asked));
      add_token(q, n, from, scales, &ask, 0, out + (n - begin) * kBlock);
    }
  }
}

// On the matrix unit, but for widths that tiles do not take, and for few rows while the keys are so
// few that they are read from near.
void score_amx(const CodedQueries& q, int64_t tokens, PageWalk* pages, float* out) {
  constexpr int64_t kFewKeys = 4096;
  const int64_t rows = tokens * q.J;
  if (q.I % 64 != 0 || q.J > kMaxHeads || (rows < 16 && pages->num_keys() <= kFewKeys))
    return score<Dot::kVnni>(q, tokens, pages, out);
  AmxShapes shapes;
  std::fill_n(shapes.rows, 5, static_cast<uint8_t>(std::min<int64_t>(16, rows)));
  const AmxTiles tiles(shapes);  // once for all, as no request passes a change of shapes
  for_pages(pages, out, [&](int64_t begin, const uint8_t* page, const uint8_t* next) HWY_ATTR {
    (rows <= 16 ? score_few : score_many)(tiles, q, begin, tokens, page, next, out);
  });
}
#endif

template <Dot kDot>
const IndexCodes& table_of() {
  static constexpr IndexCodes kTable = {&code_query, &score<kDot>, &code_row};
  return kTable;
}

std::vector<const IndexCodes*> make_tables() {
  std::vector<const IndexCodes*> out;
#if HWY_TARGET == HWY_AVX3
  static constexpr IndexCodes kAmx = {&code_query, &score_amx, &code_row};
  if (amx_int8()) out.push_back(&kAmx);
#endif
#if FATHOM_X86_INT
  const bool vnni = HWY_TARGET == HWY_AVX3 ? __builtin_cpu_supports("avx512vnni") : avx_vnni();
  if (vnni) out.push_back(&table_of<Dot::kVnni>());
  out.push_back(&table_of<Dot::kPairs>());
#endif
  out.push_back(&table_of<Dot::kPlain>());
  return out;
}

#undef FATHOM_VECS

}  // namespace

std::vector<const IndexCodes*> make_index_codes_tables() { return make_tables(); }

}  // namespace HWY_NAMESPACE
}  // namespace fathom::simd
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fathom::simd {

HWY_EXPORT(make_index_codes_tables);

std::vector<const IndexCodes*> index_codes_tables() {
  return HWY_DYNAMIC_DISPATCH(make_index_codes_tables)();
}

const IndexCodes& index_codes() { return *index_codes_tables().front(); }

}  // namespace fathom::simd
#endif  // HWY_ONCE
