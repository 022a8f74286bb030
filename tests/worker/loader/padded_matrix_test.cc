#include "worker/loader/padded_matrix.h"

#include <cstdint>
#include <vector>

#include "gtest/gtest.h"

namespace lancet {
namespace {

TEST(PaddedMatrixTest, KeepsValuesAndAddsZeros) {
  // A view of 3 x 32 within rows of 48.
  std::vector<uint8_t> codes(3 * 24);
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint8_t>(i + 1);
  std::vector<bf16> scales(3 * 3);
  for (size_t i = 0; i < scales.size(); ++i) scales[i] = ToBf16(static_cast<float>(i) + 1.0f);
  Nvfp4MatrixView view;
  view.rows = 3;
  view.cols = 32;
  view.codes = codes.data();
  view.codes_stride = 24;
  view.scales = scales.data();
  view.scales_stride = 3;
  PaddedMatrix storage;
  const Nvfp4MatrixView padded = storage.Pad(view, 5, 64);
  ASSERT_EQ(padded.rows, 5);
  ASSERT_EQ(padded.cols, 64);
  for (int64_t r = 0; r < 5; ++r) {
    for (int64_t c = 0; c < 32; ++c) {
      const uint8_t expected = r < 3 && c < 16 ? codes[r * 24 + c] : 0;
      EXPECT_EQ(padded.codes[r * padded.codes_stride + c], expected) << r << ", " << c;
    }
    for (int64_t b = 0; b < 4; ++b) {
      const float expected = r < 3 && b < 2 ? static_cast<float>(r * 3 + b) + 1.0f : 0.0f;
      EXPECT_EQ(ToFloat(padded.scales[r * padded.scales_stride + b]), expected) << r << ", " << b;
    }
  }
}

TEST(PaddedMatrixTest, LeavesAViewOfTheRightExtentAlone) {
  const std::vector<uint8_t> codes(2 * 8);
  const std::vector<bf16> scales(2);
  Nvfp4MatrixView view;
  view.rows = 2;
  view.cols = 16;
  view.codes = codes.data();
  view.codes_stride = 8;
  view.scales = scales.data();
  view.scales_stride = 1;
  PaddedMatrix storage;
  EXPECT_EQ(storage.Pad(view, 2, 16).codes, codes.data());
}

}  // namespace
}  // namespace lancet
