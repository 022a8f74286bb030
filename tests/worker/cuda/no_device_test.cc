// The engine of a CUDA build where there is no device (CMakeLists.txt hides those that are there).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/cuda/cuda_context.h"
#include "tests/testing/status_matchers.h"
#include "tests/worker/engine/engine_testing.h"

namespace lancet {
namespace {

using ::testing::StartsWith;

TEST(NoCudaDeviceTest, ContextIsUnavailable) {
  EXPECT_THAT(CudaContext::Create(0), Fails(absl::StatusCode::kUnavailable, ::testing::Not("")));
}

TEST(NoCudaDeviceTest, AutoFallsBackToTheCpuAndCudaDoesNot) {
  const auto checkpoint = OpenNano();
  EngineOptions options;
  options.max_latents = 64;
  options.device = DeviceKind::kCuda;
  EXPECT_THAT(Engine::Load(*checkpoint, options), Fails(absl::StatusCode::kUnavailable, ::testing::Not("")));
  options.device = DeviceKind::kAuto;
  for (const LinearMode mode : {LinearMode::kW4A16, LinearMode::kW4A4}) {
    options.linears.mode = mode;
    const auto engine = Engine::Load(*checkpoint, options);
    ASSERT_THAT(engine, IsOk());
    EXPECT_THAT((*engine)->device(), StartsWith("cpu "));
  }
}

}  // namespace
}  // namespace lancet
