// A look at E2M1 codes and block scales as a checkpoint stores them, for checks and statistics. Arithmetic on
// them is in kernels/nvfp4.h.
#pragma once

#include <cstdint>

#include "common/tensor_view.h"

namespace lancet {

struct CodeBlockCounts {
  int64_t counted = 0;            // blocks of 16 weights, without those of a published packer's least scale
  int64_t with_largest_code = 0;  // of these, blocks that use magnitude code 7
  int64_t zeros = 0;              // of these, blocks without any code but 0
  int64_t with_next_code = 0;     // of these, blocks whose largest magnitude code is 6

  CodeBlockCounts& operator+=(const CodeBlockCounts& other) {
    counted += other.counted;
    with_largest_code += other.with_largest_code;
    zeros += other.zeros;
    with_next_code += other.with_next_code;
    return *this;
  }
};

// Over the first `rows` rows. codes: [out, in / 2] u8; scales: [out, in / 16] bf16, which tell blocks without
// weights.
CodeBlockCounts CountCodeBlocks(const TensorView& codes, const TensorView& scales, int64_t rows);

}  // namespace lancet
