// Whether a device multiplies NVFP4 by NVFP4, found out by trying: the library is asked for the very shape,
// and what it answers is compared with the product of expanded weights on random data.
#pragma once

#include <cstdint>
#include <map>
#include <utility>

#include "absl/status/status.h"
#include "kernels/cuda/cuda_context.h"
#include "kernels/cuda/matmul.h"

namespace lancet {

class Nvfp4Probe {
 public:
  explicit Nvfp4Probe(const CudaContext& ctx) : ctx_(ctx), matmul_(ctx) {}

  // Of weights [rows, cols]. Tried once per shape; the reason for a no is logged once.
  bool Works(int64_t rows, int64_t cols);

 private:
  absl::Status Try(int64_t rows, int64_t cols);

  const CudaContext& ctx_;
  MatmulPlans matmul_;
  std::map<std::pair<int64_t, int64_t>, bool> known_;
  bool logged_ = false;
};

}  // namespace lancet
