// Whole requests on a device: none changes another's bytes.

#include <gtest/gtest.h>

#include "kernels/cuda/cuda_context.h"
#include "tests/worker/engine/engine_mixing.h"

namespace lancet {
namespace {

constexpr uint32_t kMixes = 8;

TEST(CudaEngineMixTest, ARequestsBytesDoNotDependOnWhatElseRan) {
  if (CudaDeviceCount() == 0) GTEST_SKIP() << "no CUDA device";
  const auto checkpoint = OpenNano();
  Group group(*checkpoint, 1, /*threads=*/1, /*linears=*/{}, DeviceKind::kCuda);
  group.Attach();
  ExpectMixesChangeNothing(group, kMixes);
}

TEST(CudaEngineMixTest, CachesThatDoNotFitAreRefusedAtLoad) {
  if (CudaDeviceCount() == 0) GTEST_SKIP() << "no CUDA device";
  const auto checkpoint = OpenNano();
  EngineOptions options;
  options.device = DeviceKind::kCuda;
  options.max_latents = 64;
  options.max_patches = 64;
  options.cache_bytes = int64_t{1} << 50;
  EXPECT_EQ(Engine::Load(*checkpoint, options).status().code(), absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace lancet
