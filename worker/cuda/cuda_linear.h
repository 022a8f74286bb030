// One fused Linear of one expert on a device, in the forms that its products read.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/bf16.h"
#include "kernels/cuda/cuda_context.h"
#include "kernels/cuda/device_array.h"
#include "kernels/cuda/few_rows_linear.h"
#include "kernels/nvfp4.h"
#include "worker/loader/weight_loader.h"

namespace lancet {

struct CudaLinearForms {
  bool in_turns = false;  // rows of the two parts in turns of kGateUpTurn instead of one part after the other
  bool few_rows = false;  // panels of NVFP4, for up to eight rows at a time
  bool bf16 = false;      // expanded, for many rows
  bool fp8 = false;       // E4M3 with a factor per output row, for many rows of E4M3 activations
  bool nvfp4 = false;     // codes with tiled E4M3 scales under a factor, for many rows of NVFP4 activations
  float activation_factor = 1.0f;  // of those activations
  float weight_factor = 0.0f;      // of those scales; 0: from the largest
};

class CudaLinear {
 public:
  // Stacks `parts` by rows (all with the same cols). InvalidArgument for sizes that no form has. Copies to
  // the device and waits, so that the views may go away.
  static absl::StatusOr<CudaLinear> Create(const CudaContext& ctx, absl::Span<const Nvfp4MatrixView> parts,
                                           absl::Span<const bf16> bias, const CudaLinearForms& forms);

  // The same of Linears of which the checkpoint may keep some in bf16: then all have the one form `dense`,
  // for few rows and for many.
  static absl::StatusOr<CudaLinear> Create(const CudaContext& ctx, absl::Span<const LinearView> parts,
                                           absl::Span<const bf16> bias, const CudaLinearForms& forms);

  CudaLinear() = default;
  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  int64_t resident_bytes() const;

  // What few rows are multiplied with: panels, or the dense form where there are none.
  void SetWeights(cuda::FewRowsArgs& args) const;
  const cuda::PanelWeights& panels() const { return panels_; }
  const bf16* dense() const { return dense_.data(); }                   // [rows, cols]
  const uint8_t* fp8() const { return fp8_.data(); }                    // [rows, cols]
  const float* fp8_factors() const { return factors_.data(); }          // [rows]
  const uint8_t* nvfp4_codes() const { return nvfp4_codes_.data(); }    // [rows, cols / 2]
  const uint8_t* nvfp4_scales() const { return nvfp4_scales_.data(); }  // tiled
  // On the device: the factor of NVFP4 activations, and it times the weights'.
  const float* nvfp4_activation_factor() const { return nvfp4_factors_.data() + 1; }
  const float* nvfp4_alpha() const { return nvfp4_factors_.data() + 2; }
  const bf16* bias() const { return bias_.data(); }  // [rows], or null

 private:
  int64_t rows_ = 0;
  int64_t cols_ = 0;
  cuda::PanelWeights panels_;
  DeviceArray<uint4> panel_codes_;
  DeviceArray<uint32_t> panel_scales_;
  DeviceArray<bf16> dense_;
  DeviceArray<uint8_t> fp8_;
  DeviceArray<float> factors_;
  DeviceArray<uint8_t> nvfp4_codes_;
  DeviceArray<uint8_t> nvfp4_scales_;
  DeviceArray<float> nvfp4_factors_;  // of the weights, of the activations, their product
  DeviceArray<bf16> bias_;
};

}  // namespace lancet
