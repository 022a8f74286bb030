// What the tests of CUDA ops share: a context (or a skip, where there is no device) and copies to and fro.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "kernels/cuda/cuda_context.h"
#include "kernels/cuda/device_array.h"
#include "tests/kernels/kernel_testing.h"

namespace lancet {

class CudaTest : public testing::Test {
 protected:
  void SetUp() override {
    if (CudaDeviceCount() == 0) GTEST_SKIP() << "no CUDA device";
    auto ctx = CudaContext::Create(0);
    ASSERT_TRUE(ctx.ok()) << ctx.status();
    ctx_ = *std::move(ctx);
  }

  template <typename T>
  DeviceArray<T> ToDevice(const std::vector<T>& host) {
    auto array = DeviceArray<T>::CopyOf(host, stream());
    EXPECT_TRUE(array.ok()) << array.status();
    Sync();
    return *std::move(array);
  }
  // Every byte set, so that an element that a kernel leaves out shows.
  template <typename T>
  DeviceArray<T> Poisoned(int64_t size) {
    auto array = DeviceArray<T>::Create(size);
    EXPECT_TRUE(array.ok()) << array.status();
    EXPECT_EQ(cudaMemsetAsync(array->data(), 0xff, array->bytes(), stream()), cudaSuccess);
    return *std::move(array);
  }
  template <typename T>
  std::vector<T> ToHost(const DeviceArray<T>& array) {
    std::vector<T> host(array.size());
    EXPECT_TRUE(array.CopyTo(absl::MakeSpan(host), stream()).ok());
    Sync();
    return host;
  }
  void Sync() {
    const absl::Status status = ctx_->Wait(absl::Seconds(20));
    ASSERT_TRUE(status.ok()) << status;
  }
  cudaStream_t stream() const { return ctx_->stream(); }

  std::unique_ptr<CudaContext> ctx_;
};

// ||got - expected|| / ||expected||; infinite if anything is not finite.
inline double RelativeError(const std::vector<bf16>& got, const std::vector<double>& expected) {
  if (got.size() != expected.size()) return INFINITY;
  double difference = 0;
  double norm = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    difference += (ToFloat(got[i]) - expected[i]) * (ToFloat(got[i]) - expected[i]);
    norm += expected[i] * expected[i];
  }
  const double error = std::sqrt(difference / norm);
  return std::isfinite(error) ? error : INFINITY;
}

}  // namespace lancet
