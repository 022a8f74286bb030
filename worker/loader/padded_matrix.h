// A rank's part of a Linear, brought to the extents that the device's products want.
#pragma once

#include <cstdint>
#include <vector>

#include "common/bf16.h"
#include "kernels/nvfp4.h"
#include "worker/loader/weight_loader.h"

namespace lancet {

// Keeps the copy that a padded view points at, if one had to be made.
class PaddedMatrix {
 public:
  // `view` with zero rows and columns behind its own; itself if it has that extent. Valid as long as this and
  // what `view` points at. rows and cols are not smaller than the view's, cols a multiple of 16.
  Nvfp4MatrixView Pad(const Nvfp4MatrixView& view, int64_t rows, int64_t cols);
  LinearView Pad(const LinearView& view, int64_t rows, int64_t cols);

 private:
  std::vector<uint8_t> codes_;
  std::vector<bf16> scales_;
  std::vector<bf16> dense_;
};

}  // namespace lancet
