#include "worker/model/vision/vision_layout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "tests/testing/status_matchers.h"

namespace lancet {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<int32_t> First(const std::vector<int32_t>& values, size_t count) {
  return {values.begin(), values.begin() + static_cast<ptrdiff_t>(std::min(count, values.size()))};
}

VisionLayout Make(std::vector<VisionGrid> grids) {
  return MakeVisionLayout(VisionConfig(), grids, 1 << 16).value();
}

// The published table of window orders and boundaries.
TEST(VisionLayoutTest, OneWindow) {
  const VisionLayout layout = Make({{1, 4, 4}});
  EXPECT_THAT(layout.windows, ElementsAre(0, 16));
  EXPECT_THAT(layout.frames, ElementsAre(0, 16));
  EXPECT_THAT(layout.cells, ElementsAre(0, 1, 2, 3));
}

TEST(VisionLayoutTest, SmallerWindowsAtTheEdges) {
  const VisionLayout layout = Make({{1, 12, 20}});
  EXPECT_THAT(layout.windows, ElementsAre(0, 64, 128, 160, 192, 224, 240));
  EXPECT_THAT(First(layout.cells, 9), ElementsAre(0, 1, 2, 3, 10, 11, 12, 13, 20));
}

TEST(VisionLayoutTest, LandscapePicture) {
  const VisionLayout layout = Make({{1, 40, 54}});
  ASSERT_EQ(layout.windows.size(), 36u);
  EXPECT_EQ(layout.windows[6], 384);
  EXPECT_EQ(layout.windows[7], 432);
  EXPECT_EQ(layout.windows[8], 496);
  EXPECT_EQ(layout.windows[33], 2048);
  EXPECT_EQ(layout.windows[34], 2112);
  EXPECT_EQ(layout.windows[35], 2160);
  EXPECT_THAT(First(layout.cells, 9), ElementsAre(0, 1, 2, 3, 27, 28, 29, 30, 54));
  EXPECT_THAT(std::vector<int32_t>(layout.cells.begin() + 15, layout.cells.begin() + 18),
              ElementsAre(84, 4, 5));
  EXPECT_THAT(std::vector<int32_t>(layout.cells.end() - 5, layout.cells.end()),
              ElementsAre(511, 512, 537, 538, 539));
}

TEST(VisionLayoutTest, WidePicture) {
  const VisionLayout layout = Make({{1, 36, 64}});
  ASSERT_EQ(layout.windows.size(), 41u);
  for (size_t i = 0; i <= 32; ++i) EXPECT_EQ(layout.windows[i], 64 * static_cast<int32_t>(i));
  EXPECT_EQ(layout.windows[38], 2240);
  EXPECT_EQ(layout.windows[39], 2272);
  EXPECT_EQ(layout.windows[40], 2304);
  EXPECT_THAT(First(layout.cells, 8), ElementsAre(0, 1, 2, 3, 32, 33, 34, 35));
}

TEST(VisionLayoutTest, WholeWindowsNeedNoPadding) {
  const VisionLayout layout = Make({{1, 48, 48}});
  ASSERT_EQ(layout.windows.size(), 37u);
  for (size_t i = 0; i < layout.windows.size(); ++i) {
    EXPECT_EQ(layout.windows[i], 64 * static_cast<int32_t>(i));
  }
  EXPECT_THAT(First(layout.cells, 8), ElementsAre(0, 1, 2, 3, 24, 25, 26, 27));
}

TEST(VisionLayoutTest, ClipsAndFramesStayApart) {
  const VisionLayout layout = Make({{1, 4, 18}, {3, 16, 6}});
  EXPECT_THAT(layout.frames, ElementsAre(0, 72, 168, 264, 360));
  // Every frame boundary is a window boundary, and every cell stands once.
  for (const int32_t frame : layout.frames) {
    EXPECT_TRUE(std::binary_search(layout.windows.begin(), layout.windows.end(), frame)) << frame;
  }
  std::vector<int32_t> sorted = layout.cells;
  std::sort(sorted.begin(), sorted.end());
  std::vector<int32_t> all(90);
  std::iota(all.begin(), all.end(), 0);
  EXPECT_EQ(sorted, all);
  // The first cell of the second clip.
  EXPECT_EQ(layout.cells[18], 18);
  EXPECT_EQ(layout.places[72].row, 0);
  EXPECT_EQ(layout.places[72].col, 0);
}

TEST(VisionLayoutTest, PlacesFollowTheCells) {
  const VisionLayout layout = Make({{1, 12, 20}});
  ASSERT_EQ(layout.patches(), 240);
  for (int64_t i = 0; i < layout.patches(); ++i) {
    const int32_t cell = layout.cells[i / 4];
    const int32_t inside = static_cast<int32_t>(i % 4);
    EXPECT_EQ(layout.places[i].row, cell / 10 * 2 + inside / 2);
    EXPECT_EQ(layout.places[i].col, cell % 10 * 2 + inside % 2);
  }
}

TEST(VisionLayoutTest, RefusesWhatDoesNotFit) {
  const VisionConfig config;
  EXPECT_THAT(MakeVisionLayout(config, {}, 100),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr("no picture")));
  for (const VisionGrid& grid : {VisionGrid{0, 4, 4}, VisionGrid{1, 3, 4}, VisionGrid{1, 4, 5},
                                 VisionGrid{1, -4, 4}, VisionGrid{1, 4, 0}}) {
    EXPECT_THAT(MakeVisionLayout(config, {&grid, 1}, 100),
                Fails(absl::StatusCode::kInvalidArgument, HasSubstr("multiples of 2")));
  }
  const VisionGrid fits[] = {{1, 4, 10}, {1, 6, 10}};
  EXPECT_THAT(MakeVisionLayout(config, fits, 100), IsOk());
  EXPECT_THAT(MakeVisionLayout(config, fits, 99),
              Fails(absl::StatusCode::kInvalidArgument, AllOf(HasSubstr("1x6x10"), HasSubstr("99"))));
  const VisionGrid huge[] = {{2147483647, 2147483646, 2147483646}};
  EXPECT_THAT(MakeVisionLayout(config, huge, 1 << 20),
              Fails(absl::StatusCode::kInvalidArgument, HasSubstr("room")));
}

}  // namespace
}  // namespace lancet
