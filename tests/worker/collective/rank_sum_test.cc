#include "worker/collective/rank_sum.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "tests/worker/collective/rank_threads.h"

namespace lancet {
namespace {

constexpr size_t kCounts[] = {0, 1, 15, 16, 17, 100, 2047, 2048, 2049, 10007};

TEST(RankSliceTest, CoversEverythingOnceAndStartsAtCacheLines) {
  for (const int world_size : {1, 2, 3, 4, 7}) {
    for (const size_t count : kCounts) {
      size_t next = 0;
      for (int rank = 0; rank < world_size; ++rank) {
        const SliceRange slice = RankSlice(count, rank, world_size);
        EXPECT_EQ(slice.begin, next);
        EXPECT_LE(slice.begin, slice.end);
        EXPECT_TRUE(slice.begin % 16 == 0 || slice.begin == count) << slice.begin;
        next = slice.end;
      }
      EXPECT_EQ(next, count);
    }
  }
}

TEST(SumInRankOrderTest, GivesTheBitsOfAScalarSumInRankOrder) {
  for (const int world_size : {1, 2, 3, 4, 5}) {
    for (const size_t count : kCounts) {
      std::vector<std::vector<float>> partials(world_size, std::vector<float>(count));
      std::vector<const float*> pointers;
      std::vector<float> expected(count);
      for (int rank = 0; rank < world_size; ++rank) {
        for (size_t i = 0; i < count; ++i) {
          partials[rank][i] = PartialValue(rank, i);
          expected[i] = ExpectedSum(world_size, i);
        }
        pointers.push_back(partials[rank].data());
      }
      std::vector<float> sum(count);
      SumInRankOrder(pointers, {0, count}, sum.data());
      EXPECT_TRUE(count == 0 || std::memcmp(sum.data(), expected.data(), count * sizeof(float)) == 0)
          << world_size << " ranks, " << count << " floats";
    }
  }
}

TEST(SumInRankOrderTest, WritesItsSliceOnly) {
  const std::vector<float> ones(100, 1.0f);
  const std::vector<const float*> partials = {ones.data(), ones.data()};
  std::vector<float> sum(100, -1.0f);
  SumInRankOrder(partials, {16, 48}, sum.data());
  for (size_t i = 0; i < sum.size(); ++i) {
    EXPECT_EQ(sum[i], i >= 16 && i < 48 ? 2.0f : -1.0f) << i;
  }
}

// The test values are worth something only if the order shows.
TEST(SumInRankOrderTest, TestValuesTellOrdersApart) {
  int differing = 0;
  for (size_t i = 0; i < 1000; ++i) {
    const float reversed = (PartialValue(2, i) + PartialValue(1, i)) + PartialValue(0, i);
    differing += reversed != ExpectedSum(3, i) ? 1 : 0;
  }
  EXPECT_GT(differing, 100);
}

}  // namespace
}  // namespace lancet
