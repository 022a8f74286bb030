#include "worker/loader/padded_matrix.h"

#include <algorithm>

namespace lancet {

Nvfp4MatrixView PaddedMatrix::Pad(const Nvfp4MatrixView& view, int64_t rows, int64_t cols) {
  if (view.rows == rows && view.cols == cols) return view;
  const int64_t code_bytes = cols / 2;
  const int64_t blocks = cols / 16;
  // Code 0 is zero, whatever its scale.
  codes_.assign(rows * code_bytes, 0);
  scales_.assign(rows * blocks, bf16{});
  for (int64_t r = 0; r < view.rows; ++r) {
    std::copy_n(view.codes + r * view.codes_stride, view.cols / 2, codes_.data() + r * code_bytes);
    std::copy_n(view.scales + r * view.scales_stride, view.cols / 16, scales_.data() + r * blocks);
  }
  Nvfp4MatrixView padded = view;
  padded.codes = codes_.data();
  padded.scales = scales_.data();
  padded.rows = rows;
  padded.cols = cols;
  padded.codes_stride = code_bytes;
  padded.scales_stride = blocks;
  return padded;
}

LinearView PaddedMatrix::Pad(const LinearView& view, int64_t rows, int64_t cols) {
  LinearView padded = view;
  if (!view.is_bf16) {
    padded.nvfp4 = Pad(view.nvfp4, rows, cols);
    return padded;
  }
  if (view.rows() == rows && view.cols() == cols) return view;
  dense_.assign(rows * cols, bf16{});
  for (int64_t r = 0; r < view.rows(); ++r) {
    std::copy_n(view.dense.row(r), view.cols(), dense_.data() + r * cols);
  }
  padded.dense = ConstMatrixView<bf16>(dense_.data(), rows, cols);
  return padded;
}

}  // namespace lancet
