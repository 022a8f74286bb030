#include "worker/model/vae/row_split.h"

#include <cstdint>
#include <vector>

#include "gtest/gtest.h"

namespace lancet {
namespace {

const std::vector<VaeStageShape>& Decoder() {
  static const std::vector<VaeStageShape> stages = {{3, true}, {3, true}, {3, true}, {3, false}};
  return stages;
}

// The decoder's rows with a column each, in arithmetic that wraps: every convolution mixes three rows with
// weights of its own, so a wrong row anywhere shows.
class Columns {
 public:
  using Rows = std::vector<uint64_t>;

  Rows Conv(const Rows& x) {
    const uint64_t a = Next(), b = Next(), c = Next();
    Rows y(x.size());
    for (size_t r = 0; r < x.size(); ++r) {
      y[r] = b * x[r] + (r > 0 ? a * x[r - 1] : 0) + (r + 1 < x.size() ? c * x[r + 1] : 0) + 12345;
    }
    return y;
  }
  Rows Block(const Rows& x) {
    Rows y = Conv(Conv(x));
    for (size_t r = 0; r < x.size(); ++r) y[r] += x[r];
    return y;
  }
  static Rows Twice(const Rows& x) {
    Rows y;
    for (const uint64_t value : x) y.insert(y.end(), 2, value);
    return y;
  }

 private:
  uint64_t Next() { return state_ = state_ * 6364136223846793005u + 1442695040888963407u; }
  uint64_t state_ = 7;
};

Columns::Rows Part(const Columns::Rows& rows, Range range) {
  return {rows.begin() + range.begin, rows.begin() + range.end};
}

// From the attention's result on, of the rows that `split` says; with one rank those are all.
Columns::Rows Decode(const Columns::Rows& attended, const VaeRowSplit& split) {
  Columns columns;
  Columns::Rows x = columns.Block(Part(attended, split.middle));
  for (size_t i = 0; i < Decoder().size(); ++i) {
    Columns::Rows y = x;
    for (int64_t b = 0; b < Decoder()[i].blocks; ++b) y = columns.Block(y);
    if (!Decoder()[i].resampled) {
      x = y;
      continue;
    }
    const int64_t first = split.computed(i).begin;
    const Range inside{split.kept[i].begin - first, split.kept[i].end - first};
    Columns::Rows next = columns.Conv(Columns::Twice(Part(y, inside)));
    const Columns::Rows shortcut = Columns::Twice(Part(x, inside));
    for (size_t r = 0; r < next.size(); ++r) next[r] += shortcut[r];
    x = next;
  }
  x = columns.Conv(x);
  return Part(
      x, {split.own.begin * split.scale - split.head.begin, split.own.end * split.scale - split.head.begin});
}

TEST(VaeRowSplitTest, EveryRanksRowsAreThoseOfOneRank) {
  for (const int64_t height : {1, 2, 3, 7, 16, 31, 48, 64}) {
    Columns::Rows attended(height);
    for (int64_t r = 0; r < height; ++r) attended[r] = 1000003u * (r + 1);
    const Columns::Rows whole = Decode(attended, SplitVaeRows(height, Decoder(), 0, 1));
    ASSERT_EQ(whole.size(), static_cast<size_t>(8 * height));
    for (const int world_size : {1, 2, 3, 4, 8}) {
      Columns::Rows together;
      for (int rank = 0; rank < world_size; ++rank) {
        const VaeRowSplit split = SplitVaeRows(height, Decoder(), rank, world_size);
        if (split.own.size() == 0) continue;
        const Columns::Rows part = Decode(attended, split);
        together.insert(together.end(), part.begin(), part.end());
      }
      EXPECT_EQ(together, whole) << height << " rows over " << world_size << " ranks";
    }
  }
}

TEST(VaeRowSplitTest, LateMapsOverlapLittle) {
  // 768 pixels over two ranks: 24 latent rows each.
  const VaeRowSplit split = SplitVaeRows(48, Decoder(), 0, 2);
  EXPECT_EQ(split.own, (Range{0, 24}));
  EXPECT_EQ(split.scale, 8);
  EXPECT_EQ(split.head.begin, 0);
  EXPECT_LE(split.head.end, 8 * 24 + 10);
  EXPECT_LE(split.middle.end, 24 + 17);
}

}  // namespace
}  // namespace lancet
