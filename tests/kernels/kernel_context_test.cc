#include "kernels/kernel_context.h"

#include <algorithm>

#include "gmock/gmock.h"
#include "tests/kernels/kernel_testing.h"

namespace lancet {
namespace {

TEST(KernelContextTest, ChecksThreads) {
  for (const int threads : {-1, 0, 1025}) {
    CpuOptions options;
    options.threads = threads;
    const auto ctx = KernelContext::CreateCpu(options);
    ASSERT_EQ(ctx.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(ctx.status().message()), testing::HasSubstr(std::to_string(threads)));
  }
}

TEST(KernelContextTest, LowersButNeverRaisesTheInstructionSet) {
  EXPECT_EQ(MakeContext(CpuIsa::kPortable)->isa(), CpuIsa::kPortable);
  EXPECT_EQ(MakeContext(CpuIsa::kAvx512Bf16)->isa(), DetectCpuIsa());
  EXPECT_EQ(MakeContext(CpuIsa::kPortable, 2)->description(), "cpu portable, 2 threads");
}

TEST(KernelContextTest, WidensWhereDotProductsOfBf16AreSlow) {
  CpuOptions options;
  options.use_bf16_dots = false;
  const auto ctx = KernelContext::CreateCpu(options);
  ASSERT_TRUE(ctx.ok()) << ctx.status();
  EXPECT_EQ((*ctx)->isa(), DetectCpuIsa()) << "the autoencoder's products are oneDNN's, which has AMX";
  EXPECT_EQ((*ctx)->product_isa(), std::min(DetectCpuIsa(), CpuIsa::kAvx512));
  EXPECT_EQ(MakeContext(CpuIsa::kAvx512Bf16)->product_isa(), DetectCpuIsa());
  EXPECT_TRUE(DetectCpuIsa() == CpuIsa::kAvx512Bf16 || !Bf16DotsAreFast());
}

TEST(KernelContextTest, ScratchIsPerThreadAndAligned) {
  const auto ctx = MakeContext(CpuIsa::kPortable, 3);
  for (int thread = 0; thread < 3; ++thread) {
    const absl::Span<std::byte> scratch = ctx->scratch(thread);
    EXPECT_EQ(scratch.size(), KernelContext::kScratchBytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(scratch.data()) % 64, 0u);
    std::fill(scratch.begin(), scratch.end(), static_cast<std::byte>(thread));
  }
  for (int thread = 0; thread < 3; ++thread) {
    EXPECT_EQ(ctx->scratch(thread).front(), static_cast<std::byte>(thread));
    EXPECT_EQ(ctx->scratch(thread).back(), static_cast<std::byte>(thread));
  }
}

TEST(KernelContextTest, SharedScratchGrowsAndStays) {
  const auto ctx = MakeContext(CpuIsa::kPortable);
  const auto large = ctx->SharedScratch(100'000);
  ASSERT_TRUE(large.ok());
  EXPECT_EQ(large->size(), 100'000u);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(large->data()) % 64, 0u);
  const auto small = ctx->SharedScratch(10);
  ASSERT_TRUE(small.ok());
  EXPECT_EQ(small->data(), large->data());
  EXPECT_EQ(ctx->SharedScratch(size_t{1} << 60).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(ctx->SharedScratch(10).ok());
}

}  // namespace
}  // namespace lancet
