// Which rows a device multiplies few at a time, and that the CPU's emulation takes the same ones for single.
#include "worker/cuda/cuda_pass.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>

#include "worker/model/pass.h"

namespace lancet {
namespace {

Positions Line(int32_t first, int32_t count) {
  Positions positions;
  for (int32_t i = 0; i < count; ++i) {
    positions.t.push_back(first + i);
    positions.h.push_back(first + i);
    positions.w.push_back(first + i);
  }
  return positions;
}

TEST(CudaPassTest, FewRowsAreTheSingleRowsOfTheEmulation) {
  CudaKvCache device_cache;  // rows are counted without touching its memory
  KvCache host_cache(1, 64, 4);
  CudaPass device;
  Pass host;
  const auto expect_alike = [&](int64_t few, int64_t many, int64_t gen) {
    EXPECT_EQ(device.few_rows(), few);
    EXPECT_EQ(device.many_rows(), many);
    EXPECT_EQ(device.gen_rows(), gen);
    const std::vector<uint8_t> single = host.Single();
    EXPECT_EQ(std::count(single.begin(), single.end(), 1), few);
    EXPECT_EQ(host.und_rows() - few, many);
    EXPECT_EQ(host.gen_rows(), gen);
  };
  expect_alike(0, 0, 0);
  device.AddAnswer(&device_cache, 3);
  host.AddAnswer(&host_cache, 3);
  expect_alike(1, 0, 0);
  // A lone row of text is none: it may come with others at another time.
  device.AddText(&device_cache, Line(0, 5), 4, 1);
  host.AddText(&host_cache, Line(0, 5), 4, 1);
  expect_alike(1, 1, 0);
  device.AddVision(&device_cache, Line(0, 6));
  host.AddVision(&host_cache, Line(0, 6));
  expect_alike(1, 7, 0);
  device.AddLatents(&device_cache, Line(0, 12), /*append=*/false);
  host.AddLatents(&host_cache, Line(0, 12), /*append=*/false);
  expect_alike(3, 7, 10);
  device.AddLatents(&device_cache, Line(0, 3), /*append=*/true);
  host.AddLatents(&host_cache, Line(0, 3), /*append=*/true);
  expect_alike(5, 7, 11);
}

}  // namespace
}  // namespace lancet
