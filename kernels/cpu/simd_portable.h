// Vector primitives for any processor: what the kernel templates of this folder are written in. Four lanes,
// which compilers map to the baseline registers. The AVX2 and AVX-512 headers offer the same names; each is
// included only by sources built with its flags, and everything in it is internal to those sources.
//
// A *unit* is four bytes of a packed operand of a product: one f32 here and in AVX2 and AVX-512, a pair of
// bf16 of consecutive k where the machine multiplies bf16 pairs.
#pragma once

#include <cstdint>
#include <cstring>

#define LANCET_SIMD static inline __attribute__((always_inline))

namespace lancet {
namespace {

struct SimdPortable {
  static constexpr int kLanes = 4;
  static constexpr int kUnitCols = 1;    // columns (k) in a unit
  static constexpr int kTileRows = 2;    // rows of a register tile
  static constexpr int kTilePanels = 1;  // panels (16 columns each) of a register tile
  typedef float F __attribute__((vector_size(16)));
  typedef uint32_t U __attribute__((vector_size(16)));
  typedef int32_t I __attribute__((vector_size(16)));

  LANCET_SIMD F Set1(float x) { return F{x, x, x, x}; }
  LANCET_SIMD F Load(const float* p) {
    F v;
    std::memcpy(&v, p, sizeof(v));
    return v;
  }
  LANCET_SIMD void Store(float* p, F v) { std::memcpy(p, &v, sizeof(v)); }
  LANCET_SIMD F LoadBf16(const uint16_t* p) { return (F)(U{p[0], p[1], p[2], p[3]} << 16); }
  LANCET_SIMD F LoadBf16N(const uint16_t* p, int64_t n) {
    U u = {0, 0, 0, 0};
    for (int i = 0; i < n; ++i) u[i] = static_cast<uint32_t>(p[i]) << 16;
    return (F)u;
  }
  // Round to nearest, ties to even; NaN stays NaN. The bits are in the upper half of each lane.
  LANCET_SIMD U RoundedBits(F v) {
    const U u = (U)v;
    const U rounded = (u + 0x7fffu + ((u >> 16) & 1u)) & 0xffff0000u;
    const U nan = (U)(v != v);  // NOLINT(misc-redundant-expression): true of NaN alone
    return (nan & (u | 0x400000u) & 0xffff0000u) | (~nan & rounded);
  }
  LANCET_SIMD F RoundBf16(F v) { return (F)RoundedBits(v); }
  LANCET_SIMD void StoreBf16(uint16_t* p, F v) { StoreBf16N(p, v, kLanes); }
  // As StoreBf16, for values of which subnormal ones may become zero.
  LANCET_SIMD void StoreProbability(uint16_t* p, F v) { StoreBf16(p, v); }
  LANCET_SIMD void StoreBf16N(uint16_t* p, F v, int64_t n) {
    const U u = RoundedBits(v) >> 16;
    for (int i = 0; i < n; ++i) p[i] = static_cast<uint16_t>(u[i]);
  }
  LANCET_SIMD F LoadN(const float* p, int64_t n) {
    F v = {0, 0, 0, 0};
    for (int i = 0; i < n; ++i) v[i] = p[i];
    return v;
  }
  LANCET_SIMD void StoreN(float* p, F v, int64_t n) {
    for (int i = 0; i < n; ++i) p[i] = v[i];
  }
  // Zeros all but the first n lanes.
  LANCET_SIMD F KeepFirst(F v, int64_t n) {
    for (int i = 0; i < kLanes; ++i) v[i] = i < n ? v[i] : 0.0f;
    return v;
  }
  LANCET_SIMD F Fma(F a, F b, F c) { return a * b + c; }
  // The second operand if either is NaN, as the x86 instructions.
  LANCET_SIMD F Max(F a, F b) { return (F)(((U)(a > b) & (U)a) | (~(U)(a > b) & (U)b)); }
  LANCET_SIMD F Min(F a, F b) { return (F)(((U)(a < b) & (U)a) | (~(U)(a < b) & (U)b)); }
  // Fixed order: pairs of halves.
  LANCET_SIMD float ReduceAdd(F v) { return (v[0] + v[2]) + (v[1] + v[3]); }
  LANCET_SIMD float ReduceMax(F v) {
    const float a = v[0] > v[2] ? v[0] : v[2];
    const float b = v[1] > v[3] ? v[1] : v[3];
    return a > b ? a : b;
  }
  // Nearest integer of |v| < 2^22, as f32.
  LANCET_SIMD F RoundInt(F v) {
    const F magic = Set1(12582912.0f);  // 1.5 * 2^23: its last bit is worth one
    return (v + magic) - magic;
  }
  // 2^n for integral n in [-126, 127].
  LANCET_SIMD F Exp2Int(F n) { return (F)((__builtin_convertvector(n, I) + 127) << 23); }
  // v * 2^n for integral n in [-126, 127].
  LANCET_SIMD F ScaleByNormalPow2(F v, F n) { return v * Exp2Int(n); }
  // v * 2^n for integral n in [-150, 129]: in two factors, as one would not be a normal number at the ends.
  LANCET_SIMD F ScaleByPow2(F v, F n) {
    const F first = RoundInt(n * Set1(0.5f));
    return v * Exp2Int(first) * Exp2Int(n - first);
  }

  LANCET_SIMD F LoadUnits(const uint32_t* p) {
    F v;
    std::memcpy(&v, p, sizeof(v));
    return v;
  }
  LANCET_SIMD F BroadcastUnit(const uint32_t* p) {
    float x;
    std::memcpy(&x, p, sizeof(x));
    return Set1(x);
  }
  LANCET_SIMD F MulAddUnits(F acc, F a, F b) { return acc + a * b; }

  // Packs 8 units of each of `rows` <= 8 bf16 rows: unit u of row m goes to tile[u * stride + m]. May
  // scribble over the rest of the 8 units from tile[u * stride] on, in the order of u.
  LANCET_SIMD void PackUnits8(const uint16_t* const* from, int rows, int64_t col, uint32_t* tile,
                              int64_t stride) {
    for (int m = 0; m < rows; ++m) {
      for (int u = 0; u < 8; ++u) tile[u * stride + m] = static_cast<uint32_t>(from[m][col + u]) << 16;
    }
  }

  // Expands NVFP4 codes: of kLanes rows, four bytes each, which are eight consecutive columns, times the
  // rows' scales. Column k goes to units[k * 16], [k * 16 + 1], ...; where a unit is a pair, columns 2 k and
  // 2 k + 1 do. kPlain: scales are far from the ends of the range, so that what doubles and halves is exact.
  template <bool kPlain>
  LANCET_SIMD void ExpandNvfp4(const uint8_t* codes, F scale, uint32_t* units) {
    constexpr float kValue[16] = {0.0f,  0.5f,  1.0f,  1.5f,  2.0f,  3.0f,  4.0f,  6.0f,
                                  -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};
    for (int k = 0; k < 8; ++k) {
      F value;
      for (int i = 0; i < kLanes; ++i) value[i] = kValue[codes[4 * i + k / 2] >> (4 * (k % 2)) & 15];
      const U bits = RoundedBits(value * scale);
      std::memcpy(units, &bits, sizeof(bits));
      units += 16;
    }
  }
};

}  // namespace
}  // namespace lancet
