// Shared by the kernel tests: contexts of every instruction set that the machine has, random matrices whose
// padding would be noticed, and the comparison with a reference.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/bf16.h"
#include "common/tensor_view.h"
#include "gtest/gtest.h"
#include "kernels/kernel_context.h"

namespace lancet {

inline std::vector<CpuIsa> AvailableIsas() {
  std::vector<CpuIsa> isas;
  for (const CpuIsa isa : {CpuIsa::kPortable, CpuIsa::kAvx2, CpuIsa::kAvx512, CpuIsa::kAvx512Bf16}) {
    if (isa <= DetectCpuIsa()) isas.push_back(isa);
  }
  return isas;
}

inline std::string IsaTestName(const testing::TestParamInfo<CpuIsa>& info) {
  return std::string(CpuIsaName(info.param));
}

inline std::unique_ptr<KernelContext> MakeContext(CpuIsa isa, int threads = 1) {
  CpuOptions options;
  options.threads = threads;
  options.max_isa = isa;
  options.use_bf16_dots = true;
  auto ctx = KernelContext::CreateCpu(options);
  EXPECT_TRUE(ctx.ok()) << ctx.status();
  return *std::move(ctx);
}

// A fixed stream of numbers, equal everywhere (the standard's distributions are not).
class TestRandom {
 public:
  explicit TestRandom(uint64_t seed) : state_(seed * 2654435769u + 1) {}
  uint32_t Bits() {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<uint32_t>(state_ >> 33);
  }
  float Uniform(float low, float high) { return low + (high - low) * (Bits() >> 7) / 16777216.0f; }

 private:
  uint64_t state_;
};

constexpr uint16_t kPaddingBits = 0x7fc1;  // a NaN: reading it spoils a result, writing it shows

// Owns [rows, cols] with `pad` elements between rows.
template <typename T>
struct TestMatrix {
  TestMatrix(int64_t r, int64_t c, int64_t pad = 0) : rows(r), cols(c), stride(c + pad) {
    data.assign(static_cast<size_t>(rows * stride), Padding());
  }

  static T Padding() {
    if constexpr (std::is_same_v<T, bf16>) {
      return bf16{kPaddingBits};
    } else {
      return std::nanf("");
    }
  }
  MatrixView<T> view() { return {data.data(), rows, cols, stride}; }
  ConstMatrixView<T> view() const { return {data.data(), rows, cols, stride}; }
  bool PaddingUntouched() const {
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = cols; c < stride; ++c) {
        const T value = data[r * stride + c];
        if constexpr (std::is_same_v<T, bf16>) {
          if (value.bits != kPaddingBits) return false;
        } else {
          if (!std::isnan(value)) return false;
        }
      }
    }
    return true;
  }

  int64_t rows, cols, stride;
  std::vector<T> data;
};

inline TestMatrix<bf16> RandomMatrix(int64_t rows, int64_t cols, int64_t pad, uint64_t seed,
                                     float scale = 1.0f) {
  TestMatrix<bf16> m(rows, cols, pad);
  TestRandom random(seed);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) m.view().row(r)[c] = ToBf16(random.Uniform(-scale, scale));
  }
  return m;
}

inline std::vector<bf16> RandomVector(int64_t n, uint64_t seed, float low = -1.0f, float high = 1.0f) {
  std::vector<bf16> v(static_cast<size_t>(n));
  TestRandom random(seed);
  for (bf16& x : v) x = ToBf16(random.Uniform(low, high));
  return v;
}

// The largest error of one rounding to bf16 (8 significant bits) of a value of this size.
inline double HalfUlp(double value) { return std::abs(value) / 256.0; }

template <typename T>
bool SameBits(const T* a, const T* b, int64_t n) {
  return std::equal(a, a + n, b, [](T x, T y) {
    if constexpr (std::is_same_v<T, bf16>) {
      return x.bits == y.bits;
    } else {
      return std::bit_cast<uint32_t>(x) == std::bit_cast<uint32_t>(y);
    }
  });
}

}  // namespace lancet
