#include "kernels/cuda/conv2d.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/status_macros.h"
#include "kernels/cuda/cuda_status.h"

namespace lancet {
namespace {

using TensorDescriptor = CudaHandle<cudnnTensorDescriptor_t, cudnnDestroyTensorDescriptor>;
using FilterDescriptor = CudaHandle<cudnnFilterDescriptor_t, cudnnDestroyFilterDescriptor>;
using ConvDescriptor = CudaHandle<cudnnConvolutionDescriptor_t, cudnnDestroyConvolutionDescriptor>;
using ActivationDescriptor = CudaHandle<cudnnActivationDescriptor_t, cudnnDestroyActivationDescriptor>;

// Sizes of maps in use at a time.
constexpr size_t kMaxPlans = 16;

// The only algorithm that takes an addend without an activation.
constexpr cudnnConvolutionFwdAlgo_t kAlgorithm = CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM;

absl::Status SetMap(const TensorDescriptor& descriptor, int64_t channels, int64_t height, int64_t width) {
  return CudnnStatus(cudnnSetTensor4dDescriptor(descriptor.get(), CUDNN_TENSOR_NHWC, CUDNN_DATA_BFLOAT16, 1,
                                                static_cast<int>(channels), static_cast<int>(height),
                                                static_cast<int>(width)),
                     "cudnnSetTensor4dDescriptor");
}

}  // namespace

struct CudaConv2d::Plan {
  int64_t height = 0;
  int64_t width = 0;
  TensorDescriptor x, y, bias;
  FilterDescriptor weight;
  ConvDescriptor convolution;
  ActivationDescriptor identity;
  DeviceArray<uint8_t> workspace;
};

CudaConv2d::CudaConv2d(const CudaContext& ctx, const CudaConvShape& shape) : ctx_(&ctx), shape_(shape) {}
CudaConv2d::CudaConv2d(CudaConv2d&&) noexcept = default;
CudaConv2d& CudaConv2d::operator=(CudaConv2d&&) noexcept = default;
CudaConv2d::~CudaConv2d() = default;

absl::StatusOr<CudaConv2d> CudaConv2d::Create(const CudaContext& ctx, const CudaConvShape& shape,
                                              absl::Span<const float> weight, absl::Span<const float> bias) {
  const int64_t area = shape.kernel * shape.kernel;
  if ((shape.kernel != 1 && shape.kernel != 3) || (shape.stride != 1 && shape.stride != 2) ||
      static_cast<int64_t>(weight.size()) != shape.out_channels * shape.in_channels * area ||
      static_cast<int64_t>(bias.size()) != shape.out_channels) {
    return absl::InvalidArgumentError(absl::StrCat(
        "convolution of ", shape.in_channels, " to ", shape.out_channels, " channels, kernel ", shape.kernel,
        ", stride ", shape.stride, ": ", weight.size(), " weights and ", bias.size(), " biases"));
  }
  CudaConv2d conv(ctx, shape);
  std::vector<bf16> reordered(weight.size());
  for (int64_t o = 0; o < shape.out_channels; ++o) {
    for (int64_t i = 0; i < shape.in_channels; ++i) {
      for (int64_t k = 0; k < area; ++k) {
        reordered[(o * area + k) * shape.in_channels + i] =
            ToBf16(weight[(o * shape.in_channels + i) * area + k]);
      }
    }
  }
  std::vector<bf16> rounded;
  for (const float b : bias) rounded.push_back(ToBf16(b));
  LANCET_ASSIGN_OR_RETURN(conv.weight_, DeviceArray<bf16>::CopyOf(reordered, ctx.stream()));
  LANCET_ASSIGN_OR_RETURN(conv.bias_, DeviceArray<bf16>::CopyOf(rounded, ctx.stream()));
  LANCET_RETURN_IF_ERROR(ctx.Wait(absl::Seconds(30)));
  return conv;
}

absl::StatusOr<CudaConv2d::Plan*> CudaConv2d::PlanFor(int64_t height, int64_t width) {
  for (auto it = plans_.begin(); it != plans_.end(); ++it) {
    if (it->height != height || it->width != width) continue;
    plans_.splice(plans_.begin(), plans_, it);
    return &plans_.front();
  }
  Plan fresh;
  fresh.height = height;
  fresh.width = width;
  const int side = static_cast<int>(shape_.kernel);
  const int stride = static_cast<int>(shape_.stride);
  const int pad = stride == 1 ? side / 2 : 0;
  const int64_t out_height = (height + 2 * pad - side) / stride + 1;
  const int64_t out_width = (width + 2 * pad - side) / stride + 1;
  for (TensorDescriptor* descriptor : {&fresh.x, &fresh.y, &fresh.bias}) {
    LANCET_CUDNN_RETURN_IF_ERROR(cudnnCreateTensorDescriptor(descriptor->receive()));
  }
  LANCET_RETURN_IF_ERROR(SetMap(fresh.x, shape_.in_channels, height, width));
  LANCET_RETURN_IF_ERROR(SetMap(fresh.y, shape_.out_channels, out_height, out_width));
  LANCET_RETURN_IF_ERROR(SetMap(fresh.bias, shape_.out_channels, 1, 1));
  LANCET_CUDNN_RETURN_IF_ERROR(cudnnCreateFilterDescriptor(fresh.weight.receive()));
  LANCET_CUDNN_RETURN_IF_ERROR(cudnnSetFilter4dDescriptor(
      fresh.weight.get(), CUDNN_DATA_BFLOAT16, CUDNN_TENSOR_NHWC, static_cast<int>(shape_.out_channels),
      static_cast<int>(shape_.in_channels), side, side));
  LANCET_CUDNN_RETURN_IF_ERROR(cudnnCreateConvolutionDescriptor(fresh.convolution.receive()));
  LANCET_CUDNN_RETURN_IF_ERROR(cudnnSetConvolution2dDescriptor(
      fresh.convolution.get(), pad, pad, stride, stride, 1, 1, CUDNN_CROSS_CORRELATION, CUDNN_DATA_FLOAT));
  LANCET_CUDNN_RETURN_IF_ERROR(cudnnSetConvolutionMathType(fresh.convolution.get(), CUDNN_TENSOR_OP_MATH));
  LANCET_CUDNN_RETURN_IF_ERROR(cudnnCreateActivationDescriptor(fresh.identity.receive()));
  LANCET_CUDNN_RETURN_IF_ERROR(cudnnSetActivationDescriptor(fresh.identity.get(), CUDNN_ACTIVATION_IDENTITY,
                                                            CUDNN_NOT_PROPAGATE_NAN, 0.0));
  size_t bytes = 0;
  LANCET_CUDNN_RETURN_IF_ERROR(
      cudnnGetConvolutionForwardWorkspaceSize(ctx_->cudnn(), fresh.x.get(), fresh.weight.get(),
                                              fresh.convolution.get(), fresh.y.get(), kAlgorithm, &bytes));
  // The context's workspace serves nearly all: calls are ordered by the stream.
  if (static_cast<int64_t>(bytes) > CudaContext::kWorkspaceBytes) {
    LANCET_ASSIGN_OR_RETURN(fresh.workspace, DeviceArray<uint8_t>::Create(static_cast<int64_t>(bytes)));
  }
  plans_.push_front(std::move(fresh));
  if (plans_.size() > kMaxPlans) plans_.pop_back();
  return &plans_.front();
}

absl::Status CudaConv2d::Forward(const bf16* x, int64_t height, int64_t width, const bf16* addend, bf16* y) {
  LANCET_ASSIGN_OR_RETURN(Plan* const plan, PlanFor(height, width));
  const bool own = plan->workspace.size() > 0;
  const float one = 1.0f;
  const float addend_scale = addend != nullptr ? 1.0f : 0.0f;
  return CudnnStatus(
      cudnnConvolutionBiasActivationForward(
          ctx_->cudnn(), &one, plan->x.get(), x, plan->weight.get(), weight_.data(), plan->convolution.get(),
          kAlgorithm, own ? static_cast<void*>(plan->workspace.data()) : ctx_->workspace(),
          own ? static_cast<size_t>(plan->workspace.bytes())
              : static_cast<size_t>(CudaContext::kWorkspaceBytes),
          &addend_scale, plan->y.get(), addend != nullptr ? addend : y, plan->bias.get(), bias_.data(),
          plan->identity.get(), plan->y.get(), y),
      absl::StrCat("convolution of ", height, " x ", width, ", ", shape_.in_channels, " to ",
                   shape_.out_channels));
}

}  // namespace lancet
