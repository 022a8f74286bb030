#include "coordinator/schedule/iteration_patience.h"

#include <gtest/gtest.h>

namespace lancet {
namespace {

constexpr absl::Duration kLeast = absl::Seconds(30);
constexpr absl::Duration kMost = absl::Minutes(10);

TEST(IterationPatienceTest, HasAllOfItForWhatWasNotSeenYet) {
  IterationPatience patience({});
  EXPECT_EQ(patience.For({.rows = 18}), kMost);
  patience.Add({.rows = 18}, absl::Milliseconds(50));
  EXPECT_EQ(patience.For({.rows = 18}), kLeast);
  EXPECT_EQ(patience.For({.rows = 18, .decoded_latents = 16}), kMost);
  EXPECT_EQ(patience.For({.encoded_patches = 64}), kMost);
}

TEST(IterationPatienceTest, IsAMultipleOfTheLongestOfAKind) {
  IterationPatience patience({});
  patience.Add({.rows = 500}, absl::Seconds(4));
  patience.Add({.rows = 500}, absl::Seconds(3));
  patience.Add({.rows = 2}, absl::Milliseconds(20));
  EXPECT_EQ(patience.For({.rows = 500}), absl::Seconds(80));
  EXPECT_EQ(patience.For({.rows = 2}), absl::Seconds(80));
  patience.Add({.decoded_latents = 256}, absl::Seconds(2));
  EXPECT_EQ(patience.For({.rows = 500, .decoded_latents = 256}), absl::Seconds(120));
}

TEST(IterationPatienceTest, GrowsWithTheSquareOfTheSizeUpToItsLimit) {
  IterationPatience patience({});
  patience.Add({.rows = 100}, absl::Seconds(1));
  EXPECT_EQ(patience.For({.rows = 100}), kLeast);
  EXPECT_EQ(patience.For({.rows = 300}), absl::Seconds(180));
  EXPECT_EQ(patience.For({.rows = 4000}), kMost);
}

TEST(IterationPatienceTest, TheUpperLimitWinsOverTheLower) {
  IterationPatience patience({.least = absl::Seconds(30), .most = absl::Seconds(5)});
  patience.Add({.rows = 1}, absl::Milliseconds(1));
  EXPECT_EQ(patience.For({.rows = 1}), absl::Seconds(5));
}

}  // namespace
}  // namespace lancet
