#include "kernels/cpu/byte_rows_impl.h"
#include "kernels/cpu/simd_portable.h"

namespace lancet {
namespace {

struct PortableBytes : SimdPortable {
  template <int M>
  LANCET_SIMD void Dots(const int8_t* w, const int8_t* x, int64_t cols, int32_t* sums) {
    for (int m = 0; m < M; ++m) {
      int32_t sum = 0;
      for (int64_t i = 0; i < cols; ++i) sum += static_cast<int32_t>(w[i]) * x[m * cols + i];
      sums[m] = sum;
    }
  }
};

}  // namespace

void ByteRowsPortable(const ByteRowsArgs& args) { RunByteRows<PortableBytes>(args); }

}  // namespace lancet
