// CUDA's and its libraries' error codes as Status, made where they occur.
#pragma once

#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <cudnn.h>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace lancet {

// OK, or an error that names the call: ResourceExhausted if device memory is out, Unavailable if there is no
// device or driver, Internal otherwise.
absl::Status CudaStatus(cudaError_t error, absl::string_view call);
absl::Status CublasStatus(cublasStatus_t status, absl::string_view call);
absl::Status CudnnStatus(cudnnStatus_t status, absl::string_view call);

}  // namespace lancet

#define LANCET_CUDA_RETURN_IF_ERROR(call) LANCET_RETURN_IF_ERROR(::lancet::CudaStatus((call), #call))
#define LANCET_CUBLAS_RETURN_IF_ERROR(call) LANCET_RETURN_IF_ERROR(::lancet::CublasStatus((call), #call))
#define LANCET_CUDNN_RETURN_IF_ERROR(call) LANCET_RETURN_IF_ERROR(::lancet::CudnnStatus((call), #call))
