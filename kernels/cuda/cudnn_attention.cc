#include "kernels/cuda/cudnn_attention.h"

#include <array>
#include <cmath>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "kernels/cuda/cuda_handle.h"
#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/device_array.h"

namespace lancet {
namespace {

using Backend = CudaHandle<cudnnBackendDescriptor_t, cudnnBackendDestroyDescriptor>;

// Shapes in use at a time: two branches of a few pictures.
constexpr size_t kMaxPlans = 16;

enum TensorId : int64_t { kQuery = 1, kKey, kValue, kOutput, kScale };

absl::StatusOr<Backend> Make(cudnnBackendDescriptorType_t type) {
  Backend descriptor;
  LANCET_CUDNN_RETURN_IF_ERROR(cudnnBackendCreateDescriptor(type, descriptor.receive()));
  return descriptor;
}

absl::Status Set(const Backend& descriptor, cudnnBackendAttributeName_t name,
                 cudnnBackendAttributeType_t type, int64_t count, const void* values) {
  return CudnnStatus(cudnnBackendSetAttribute(descriptor.get(), name, type, count, values),
                     absl::StrCat("cudnnBackendSetAttribute ", name));
}

absl::Status SetDescriptor(const Backend& descriptor, cudnnBackendAttributeName_t name,
                           const Backend& value) {
  const cudnnBackendDescriptor_t raw = value.get();
  return Set(descriptor, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &raw);
}

// A [1, heads, rows, head_dim] tensor.
absl::StatusOr<Backend> MakeTensor(TensorId id, int64_t heads, int64_t rows, int64_t head_dim,
                                   int64_t stride) {
  LANCET_ASSIGN_OR_RETURN(Backend tensor, Make(CUDNN_BACKEND_TENSOR_DESCRIPTOR));
  const cudnnDataType_t type = CUDNN_DATA_BFLOAT16;
  const int64_t extents[4] = {1, heads, rows, head_dim};
  const int64_t strides[4] = {rows * stride, head_dim, stride, 1};
  const int64_t alignment = 16;
  const int64_t unique = id;
  LANCET_RETURN_IF_ERROR(Set(tensor, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type));
  LANCET_RETURN_IF_ERROR(Set(tensor, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, extents));
  LANCET_RETURN_IF_ERROR(Set(tensor, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, strides));
  LANCET_RETURN_IF_ERROR(Set(tensor, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &unique));
  LANCET_RETURN_IF_ERROR(Set(tensor, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment));
  LANCET_CUDNN_RETURN_IF_ERROR(cudnnBackendFinalize(tensor.get()));
  return tensor;
}

absl::StatusOr<Backend> MakeScalar(TensorId id) {
  LANCET_ASSIGN_OR_RETURN(Backend tensor, Make(CUDNN_BACKEND_TENSOR_DESCRIPTOR));
  const cudnnDataType_t type = CUDNN_DATA_FLOAT;
  const int64_t ones[4] = {1, 1, 1, 1};
  const int64_t alignment = 4;
  const int64_t unique = id;
  const bool by_value = true;
  LANCET_RETURN_IF_ERROR(Set(tensor, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type));
  LANCET_RETURN_IF_ERROR(Set(tensor, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, ones));
  LANCET_RETURN_IF_ERROR(Set(tensor, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, ones));
  LANCET_RETURN_IF_ERROR(Set(tensor, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &unique));
  LANCET_RETURN_IF_ERROR(Set(tensor, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment));
  LANCET_RETURN_IF_ERROR(Set(tensor, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, &by_value));
  LANCET_CUDNN_RETURN_IF_ERROR(cudnnBackendFinalize(tensor.get()));
  return tensor;
}

}  // namespace

struct CudnnAttention::Plan {
  std::array<int64_t, 8> key{};
  Backend q, k, v, out, scale, operation, graph, config, plan;
  DeviceArray<uint8_t> workspace;
};

CudnnAttention::CudnnAttention(cudnnHandle_t handle) : handle_(handle) {}
CudnnAttention::~CudnnAttention() = default;

absl::StatusOr<CudnnAttention::Plan*> CudnnAttention::PlanFor(const PictureAttentionArgs& args) {
  const std::array<int64_t, 8> key = {args.rows,     args.keys,     args.heads,     args.kv_heads,
                                      args.head_dim, args.q_stride, args.kv_stride, args.out_stride};
  for (auto it = plans_.begin(); it != plans_.end(); ++it) {
    if (it->key == key) {
      plans_.splice(plans_.begin(), plans_, it);
      return &plans_.front();
    }
  }
  Plan plan;
  plan.key = key;
  LANCET_ASSIGN_OR_RETURN(plan.q, MakeTensor(kQuery, args.heads, args.rows, args.head_dim, args.q_stride));
  LANCET_ASSIGN_OR_RETURN(plan.k, MakeTensor(kKey, args.kv_heads, args.keys, args.head_dim, args.kv_stride));
  LANCET_ASSIGN_OR_RETURN(plan.v,
                          MakeTensor(kValue, args.kv_heads, args.keys, args.head_dim, args.kv_stride));
  LANCET_ASSIGN_OR_RETURN(plan.out,
                          MakeTensor(kOutput, args.heads, args.rows, args.head_dim, args.out_stride));
  LANCET_ASSIGN_OR_RETURN(plan.scale, MakeScalar(kScale));
  LANCET_ASSIGN_OR_RETURN(plan.operation, Make(CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR));
  LANCET_RETURN_IF_ERROR(SetDescriptor(plan.operation, CUDNN_ATTR_OPERATION_SDPA_FWD_QDESC, plan.q));
  LANCET_RETURN_IF_ERROR(SetDescriptor(plan.operation, CUDNN_ATTR_OPERATION_SDPA_FWD_KDESC, plan.k));
  LANCET_RETURN_IF_ERROR(SetDescriptor(plan.operation, CUDNN_ATTR_OPERATION_SDPA_FWD_VDESC, plan.v));
  LANCET_RETURN_IF_ERROR(SetDescriptor(plan.operation, CUDNN_ATTR_OPERATION_SDPA_FWD_ODESC, plan.out));
  LANCET_RETURN_IF_ERROR(SetDescriptor(plan.operation, CUDNN_ATTR_OPERATION_SDPA_FWD_SCALEDESC, plan.scale));
  LANCET_CUDNN_RETURN_IF_ERROR(cudnnBackendFinalize(plan.operation.get()));

  LANCET_ASSIGN_OR_RETURN(plan.graph, Make(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR));
  LANCET_RETURN_IF_ERROR(SetDescriptor(plan.graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, plan.operation));
  LANCET_RETURN_IF_ERROR(Set(plan.graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &handle_));
  LANCET_CUDNN_RETURN_IF_ERROR(cudnnBackendFinalize(plan.graph.get()));

  LANCET_ASSIGN_OR_RETURN(Backend heuristic, Make(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR));
  LANCET_RETURN_IF_ERROR(SetDescriptor(heuristic, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, plan.graph));
  const cudnnBackendHeurMode_t mode = CUDNN_HEUR_MODE_A;
  LANCET_RETURN_IF_ERROR(Set(heuristic, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode));
  LANCET_CUDNN_RETURN_IF_ERROR(cudnnBackendFinalize(heuristic.get()));
  int64_t found = 0;
  LANCET_CUDNN_RETURN_IF_ERROR(cudnnBackendGetAttribute(heuristic.get(), CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                                        CUDNN_TYPE_BACKEND_DESCRIPTOR, 0, &found, nullptr));
  for (int64_t i = 0; i < found; ++i) {
    // Configurations come in the library's order of preference; the first that makes a plan is taken.
    std::vector<Backend> configs;
    std::vector<cudnnBackendDescriptor_t> raw;
    for (int64_t c = 0; c <= i; ++c) {
      LANCET_ASSIGN_OR_RETURN(Backend config, Make(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR));
      raw.push_back(config.get());
      configs.push_back(std::move(config));
    }
    int64_t returned = 0;
    LANCET_CUDNN_RETURN_IF_ERROR(cudnnBackendGetAttribute(heuristic.get(), CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                                          CUDNN_TYPE_BACKEND_DESCRIPTOR, i + 1, &returned,
                                                          raw.data()));
    if (returned <= i) break;
    LANCET_ASSIGN_OR_RETURN(Backend candidate, Make(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR));
    LANCET_RETURN_IF_ERROR(SetDescriptor(candidate, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, configs[i]));
    LANCET_RETURN_IF_ERROR(Set(candidate, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &handle_));
    if (cudnnBackendFinalize(candidate.get()) != CUDNN_STATUS_SUCCESS) continue;
    int64_t bytes = 0;
    LANCET_CUDNN_RETURN_IF_ERROR(cudnnBackendGetAttribute(
        candidate.get(), CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &returned, &bytes));
    LANCET_ASSIGN_OR_RETURN(plan.workspace, DeviceArray<uint8_t>::Create(bytes));
    plan.config = std::move(configs[i]);
    plan.plan = std::move(candidate);
    plans_.push_front(std::move(plan));
    if (plans_.size() > kMaxPlans) {
      plans_.pop_back();
      ++generation_;
    }
    return &plans_.front();
  }
  return absl::UnimplementedError(absl::StrCat(
      "cuDNN has no plan for attention of ", args.rows, " rows to ", args.keys, " keys, ", args.heads,
      " heads over ", args.kv_heads, " of ", args.head_dim, ": ", found, " configurations"));
}

absl::Status CudnnAttention::Run(const PictureAttentionArgs& args) {
  LANCET_ASSIGN_OR_RETURN(Plan* const plan, PlanFor(args));
  float scale = 1.0f / std::sqrt(static_cast<float>(args.head_dim));
  const int64_t ids[5] = {kQuery, kKey, kValue, kOutput, kScale};
  // The library takes mutable pointers and writes to the output alone.
  void* const pointers[5] = {const_cast<bf16*>(args.q), const_cast<bf16*>(args.k), const_cast<bf16*>(args.v),
                             args.out, &scale};
  void* const workspace = plan->workspace.data();
  LANCET_ASSIGN_OR_RETURN(const Backend pack, Make(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR));
  LANCET_RETURN_IF_ERROR(Set(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, 5, ids));
  LANCET_RETURN_IF_ERROR(Set(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, 5, pointers));
  LANCET_RETURN_IF_ERROR(Set(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace));
  LANCET_CUDNN_RETURN_IF_ERROR(cudnnBackendFinalize(pack.get()));
  return CudnnStatus(cudnnBackendExecute(handle_, plan->plan.get(), pack.get()), "attention");
}

}  // namespace lancet
