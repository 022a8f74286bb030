#include "tools/quantize/linear_packing.h"

#include "common/model_config.h"
#include "kernels/number_formats.h"

namespace lancet {

PackedLinear::PackedLinear(int64_t rows, int64_t cols)
    : codes(rows * cols / 2), scales_fp8(rows * cols / kNvfp4Block), scales_bf16(rows * cols / kNvfp4Block) {}

void PackedLinear::SetScale(int64_t block, const ScaleGrid& grid, int index) {
  scales_fp8[block] = grid.byte(index);
  scales_bf16[block] = ToBf16(grid.scale(index));
}

void ReadScaledRow(const SourceMatrix& matrix, int64_t row, absl::Span<const float> s, absl::Span<float> to) {
  matrix.ReadRow(row, to);
  for (size_t c = 0; c < s.size(); ++c) to[c] *= s[c];
}

PackedLinear PackToLargest(const SourceMatrix& matrix, absl::Span<const float> s, ThreadPool& pool) {
  const int64_t cols = matrix.cols();
  const int64_t blocks = cols / kNvfp4Block;
  PackedLinear packed(matrix.rows(), cols);
  pool.ParallelFor(matrix.rows(), 1, [&](int64_t begin, int64_t end, int) {
    std::vector<float> row(cols);
    std::vector<float> scales(blocks);
    for (int64_t r = begin; r < end; ++r) {
      ReadScaledRow(matrix, r, s, absl::MakeSpan(row));
      RoundToLargest(row, absl::MakeSpan(packed.codes).subspan(r * cols / 2, cols / 2),
                     absl::MakeSpan(scales));
      for (int64_t b = 0; b < blocks; ++b) {
        packed.scales_fp8[r * blocks + b] = ToE4m3(scales[b]);
        packed.scales_bf16[r * blocks + b] = ToBf16(scales[b]);
      }
    }
  });
  return packed;
}

PackedLinear PackSearched(const SourceMatrix& matrix, absl::Span<const float> s,
                          absl::Span<const float> weights, float largest, ThreadPool& pool) {
  const int64_t cols = matrix.cols();
  const int64_t blocks = cols / kNvfp4Block;
  const ScaleGrid grid = ScaleGrid::For(largest);
  PackedLinear packed(matrix.rows(), cols);
  packed.factor = grid.factor();
  pool.ParallelFor(matrix.rows(), 1, [&](int64_t begin, int64_t end, int) {
    std::vector<float> row(cols);
    std::vector<uint16_t> indices(blocks);
    for (int64_t r = begin; r < end; ++r) {
      ReadScaledRow(matrix, r, s, absl::MakeSpan(row));
      SearchScales(grid, row, weights, absl::MakeSpan(packed.codes).subspan(r * cols / 2, cols / 2),
                   absl::MakeSpan(indices));
      for (int64_t b = 0; b < blocks; ++b) packed.SetScale(r * blocks + b, grid, indices[b]);
    }
  });
  return packed;
}

std::vector<bf16> ScaleToBf16(const SourceMatrix& matrix, absl::Span<const float> s, ThreadPool& pool) {
  const int64_t cols = matrix.cols();
  std::vector<bf16> values(matrix.rows() * cols);
  pool.ParallelFor(matrix.rows(), 1, [&](int64_t begin, int64_t end, int) {
    std::vector<float> row(cols);
    for (int64_t r = begin; r < end; ++r) {
      ReadScaledRow(matrix, r, s, absl::MakeSpan(row));
      for (int64_t c = 0; c < cols; ++c) values[r * cols + c] = ToBf16(row[c]);
    }
  });
  return values;
}

}  // namespace lancet
