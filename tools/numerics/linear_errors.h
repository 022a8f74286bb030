// How far each arithmetic of a Linear is from the exact product of codes and bf16 scales.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/bf16.h"
#include "common/checkpoint.h"
#include "kernels/kernel_context.h"
#include "kernels/nvfp4.h"
#include "tools/numerics/expected_requests.h"
#include "tools/numerics/model_quality.h"

namespace lancet {

// Of one product: weights, also with the scales that a checkpoint has as E4M3, and rows that enter it.
struct LinearSample {
  Nvfp4MatrixView weights;
  std::vector<uint8_t> scales_fp8;  // [rows, cols / 16]
  std::vector<bf16> x;              // [tokens, cols]
  float scales_fp8_factor = 1.0f;   // of a checkpoint that has them in two-level form
  float weight_factor = 0.0f;       // the same for products in w4a4; 0: from the largest scale
};

// ||y - exact|| / ||exact||, y before it is rounded to bf16.
struct LinearErrors {
  static constexpr int kColumns = 7;
  // w4a16; bf16 activations with E4M3 scales as shipped; with E4M3 scales under a factor; w4a8_int8;
  // w4a8_fp8; w4a4 with factor 1; w4a4 with the factor of the sample's largest value.
  std::array<double, kColumns> column{};
};
absl::StatusOr<LinearErrors> MeasureLinear(const KernelContext& ctx, const LinearSample& sample);

// Table of a checkpoint's Linears, by kind and expert: mean over the layers of the errors on rows that enter
// them while `requests` run in w4a16.
absl::StatusOr<std::string> CheckpointLinearTable(const KernelContext& ctx, const Checkpoint& checkpoint,
                                                  LoneEngine& engine, const ExpectedRequests& requests);

// Table of made-up weights and activations, normal and heavy-tailed, of several sizes.
absl::StatusOr<std::string> MadeUpLinearTable(const KernelContext& ctx);

}  // namespace lancet
