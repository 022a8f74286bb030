// Row-major x [tokens, cols], w [rows, cols], y [tokens, rows] are column-major to cuBLASLt, with the weights
// as A: m = rows, n = tokens, k = cols, A transposed. That form alone exists for FP8 and FP4.

#include "kernels/cuda/matmul.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/status_macros.h"
#include "kernels/cuda/cuda_status.h"

namespace lancet {
namespace {

using Descriptor = CudaHandle<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy>;
using MatrixLayout = CudaHandle<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;
using Preference = CudaHandle<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>;

constexpr int kCandidates = 64;
constexpr int kTimedRuns = 3;
constexpr absl::Duration kTimingTimeout = absl::Seconds(60);

// The family of kernels that serves this many rows serves every number of them.
constexpr int64_t kFamilyTokens = 4096;

cudaDataType_t InputType(MatmulInput input) {
  switch (input) {
    case MatmulInput::kBf16:
      return CUDA_R_16BF;
    case MatmulInput::kFp8:
      return CUDA_R_8F_E4M3;
    case MatmulInput::kNvfp4:
      break;
  }
  return CUDA_R_4F_E2M1;
}

template <typename T>
absl::Status Set(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t attribute, T value) {
  return CublasStatus(cublasLtMatmulDescSetAttribute(desc, attribute, &value, sizeof(value)),
                      absl::StrCat("cublasLtMatmulDescSetAttribute ", attribute));
}

int Config(const cublasLtMatmulAlgo_t& algo, cublasLtMatmulAlgoConfigAttributes_t attribute) {
  int value = 0;
  size_t written = 0;
  if (cublasLtMatmulAlgoConfigGetAttribute(&algo, attribute, &value, sizeof(value), &written) !=
      CUBLAS_STATUS_SUCCESS) {
    return -1;
  }
  return value;
}

}  // namespace

std::string MatmulShape::DebugString() const {
  const char* name = input == MatmulInput::kBf16 ? "bf16" : input == MatmulInput::kFp8 ? "fp8" : "nvfp4";
  return absl::StrCat(name, " [", tokens, ", ", cols, "] x [", rows, ", ", cols, "]^T",
                      has_bias ? " + bias" : "", accumulate ? " + y" : "", fast_sums ? ", fast sums" : "",
                      output == MatmulOutput::kF32 ? " to f32" : "");
}

struct MatmulPlans::Plan {
  MatmulShape shape;
  Descriptor descriptor;
  MatrixLayout a, b, d;
  std::vector<MatmulCandidate> candidates;  // without those that split K
  size_t chosen = 0;
  uint64_t last_use = 0;
};

MatmulPlans::MatmulPlans(const CudaContext& ctx) : ctx_(ctx) {}
MatmulPlans::~MatmulPlans() = default;

absl::StatusOr<int> MatmulPlans::FamilyOf(const MatmulShape& shape, const MatmulArgs& args) {
  MatmulShape usual = shape;
  usual.tokens = kFamilyTokens;
  const auto found = families_.find(usual.Key());
  if (found != families_.end()) return found->second;
  LANCET_ASSIGN_OR_RETURN(const std::unique_ptr<Plan> reference, Ask(usual, args));
  if (families_.size() >= kMaxFamilies) families_.clear();
  return families_.emplace(usual.Key(), reference->candidates.front().id).first->second;
}

absl::StatusOr<MatmulPlans::Plan*> MatmulPlans::PlanFor(const MatmulShape& shape, const MatmulArgs& args) {
  const auto found = plans_.find(shape.Key());
  if (found != plans_.end()) {
    found->second->last_use = ++uses_;
    return found->second.get();
  }
  LANCET_ASSIGN_OR_RETURN(std::unique_ptr<Plan> plan, Ask(shape, args));
  // Sums are formed alike within a family of kernels, not between families: all numbers of rows of a weight
  // take one.
  LANCET_ASSIGN_OR_RETURN(const int family, FamilyOf(shape, args));
  std::vector<MatmulCandidate>& candidates = plan->candidates;
  candidates.erase(std::remove_if(candidates.begin(), candidates.end(),
                                  [&](const MatmulCandidate& c) { return c.id != family; }),
                   candidates.end());
  if (candidates.empty()) {
    return absl::UnimplementedError(absl::StrCat("cuBLASLt has no kernel for ", shape.DebugString(),
                                                 " that sums as for other numbers of rows"));
  }
  if (shape.tokens >= kTimedTokens && candidates.size() > 1) {
    LANCET_RETURN_IF_ERROR(ChooseByTime(*plan, args));
  }
  if (plans_.size() >= kMaxPlans) {
    plans_.erase(std::min_element(plans_.begin(), plans_.end(), [](const auto& a, const auto& b) {
      return a.second->last_use < b.second->last_use;
    }));
  }
  plan->last_use = ++uses_;
  return plans_.emplace(shape.Key(), std::move(plan)).first->second.get();
}

absl::StatusOr<std::unique_ptr<MatmulPlans::Plan>> MatmulPlans::Ask(const MatmulShape& shape,
                                                                    const MatmulArgs& args) {
  auto plan = std::make_unique<Plan>();
  plan->shape = shape;
  const cudaDataType_t type = InputType(shape.input);
  const cudaDataType_t out = shape.output == MatmulOutput::kBf16 ? CUDA_R_16BF : CUDA_R_32F;
  LANCET_CUBLAS_RETURN_IF_ERROR(
      cublasLtMatmulDescCreate(plan->descriptor.receive(), CUBLAS_COMPUTE_32F, CUDA_R_32F));
  const cublasLtMatmulDesc_t desc = plan->descriptor.get();
  LANCET_RETURN_IF_ERROR(Set(desc, CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T));
  LANCET_RETURN_IF_ERROR(Set(desc, CUBLASLT_MATMUL_DESC_TRANSB, CUBLAS_OP_N));
  if (shape.has_bias) {
    LANCET_RETURN_IF_ERROR(Set(desc, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS));
    LANCET_RETURN_IF_ERROR(Set(desc, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, CUDA_R_16BF));
    LANCET_RETURN_IF_ERROR(Set(desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, static_cast<const void*>(args.bias)));
  }
  if (shape.input != MatmulInput::kBf16) {
    const auto mode = shape.input == MatmulInput::kFp8 ? CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F
                                                       : CUBLASLT_MATMUL_MATRIX_SCALE_VEC16_UE4M3;
    LANCET_RETURN_IF_ERROR(Set(desc, CUBLASLT_MATMUL_DESC_A_SCALE_MODE, mode));
    LANCET_RETURN_IF_ERROR(Set(desc, CUBLASLT_MATMUL_DESC_B_SCALE_MODE, mode));
    // The heuristic wants them set.
    LANCET_RETURN_IF_ERROR(Set(desc, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, args.w_scales));
    LANCET_RETURN_IF_ERROR(Set(desc, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, args.x_scales));
  }
  if (shape.fast_sums) {
    LANCET_RETURN_IF_ERROR(Set(desc, CUBLASLT_MATMUL_DESC_FAST_ACCUM, int8_t{1}));
  }
  if (shape.input == MatmulInput::kNvfp4) {
    LANCET_RETURN_IF_ERROR(Set(desc, CUBLASLT_MATMUL_DESC_POINTER_MODE, CUBLASLT_POINTER_MODE_DEVICE));
  }
  LANCET_CUBLAS_RETURN_IF_ERROR(cublasLtMatrixLayoutCreate(plan->a.receive(), type, shape.cols, shape.rows,
                                                           shape.w_stride > 0 ? shape.w_stride : shape.cols));
  LANCET_CUBLAS_RETURN_IF_ERROR(
      cublasLtMatrixLayoutCreate(plan->b.receive(), type, shape.cols, shape.tokens, shape.x_stride));
  LANCET_CUBLAS_RETURN_IF_ERROR(
      cublasLtMatrixLayoutCreate(plan->d.receive(), out, shape.rows, shape.tokens, shape.y_stride));
  Preference preference;
  LANCET_CUBLAS_RETURN_IF_ERROR(cublasLtMatmulPreferenceCreate(preference.receive()));
  const size_t workspace = CudaContext::kWorkspaceBytes;
  LANCET_CUBLAS_RETURN_IF_ERROR(cublasLtMatmulPreferenceSetAttribute(
      preference.get(), CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof(workspace)));
  // Sums split over blocks depend on the number of rows: not asked for, and left out below should they come.
  const uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_NONE;
  LANCET_CUBLAS_RETURN_IF_ERROR(cublasLtMatmulPreferenceSetAttribute(
      preference.get(), CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reductions, sizeof(reductions)));
  cublasLtMatmulHeuristicResult_t results[kCandidates];
  int count = 0;
  const cublasStatus_t status =
      cublasLtMatmulAlgoGetHeuristic(ctx_.cublas(), desc, plan->a.get(), plan->b.get(), plan->d.get(),
                                     plan->d.get(), preference.get(), kCandidates, results, &count);
  if (status != CUBLAS_STATUS_SUCCESS || count == 0) {
    return absl::UnimplementedError(absl::StrCat("cuBLASLt has nothing for ", shape.DebugString(),
                                                 ": status ", status, ", ", count, " candidates"));
  }
  for (int i = 0; i < count; ++i) {
    MatmulCandidate candidate;
    candidate.algo = results[i].algo;
    candidate.id = Config(results[i].algo, CUBLASLT_ALGO_CONFIG_ID);
    candidate.tile = Config(results[i].algo, CUBLASLT_ALGO_CONFIG_TILE_ID);
    candidate.stages = Config(results[i].algo, CUBLASLT_ALGO_CONFIG_STAGES_ID);
    candidate.split_k = Config(results[i].algo, CUBLASLT_ALGO_CONFIG_SPLITK_NUM);
    candidate.workspace_bytes = results[i].workspaceSize;
    const int reduction = Config(results[i].algo, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME);
    if (candidate.split_k > 1 || reduction > 0) continue;
    plan->candidates.push_back(candidate);
  }
  if (plan->candidates.empty()) {
    return absl::UnimplementedError(absl::StrCat("cuBLASLt only splits the sums of ", shape.DebugString()));
  }
  return plan;
}

absl::Status MatmulPlans::Launch(Plan& plan, const MatmulArgs& args, const cublasLtMatmulAlgo_t& algo) {
  const cublasLtMatmulDesc_t desc = plan.descriptor.get();
  if (plan.shape.has_bias) {
    LANCET_RETURN_IF_ERROR(Set(desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, static_cast<const void*>(args.bias)));
  }
  if (plan.shape.input != MatmulInput::kBf16) {
    LANCET_RETURN_IF_ERROR(Set(desc, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, args.w_scales));
    LANCET_RETURN_IF_ERROR(Set(desc, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, args.x_scales));
  }
  const float host_alpha = 1.0f;
  const float host_beta = plan.shape.accumulate ? 1.0f : 0.0f;
  const bool on_device = plan.shape.input == MatmulInput::kNvfp4;
  return CublasStatus(
      cublasLtMatmul(ctx_.cublas(), desc, on_device ? args.alpha : &host_alpha, args.w, plan.a.get(), args.x,
                     plan.b.get(), on_device ? args.beta : &host_beta, args.y, plan.d.get(), args.y,
                     plan.d.get(), &algo, ctx_.workspace(), CudaContext::kWorkspaceBytes, ctx_.stream()),
      "cublasLtMatmul");
}

absl::Status MatmulPlans::Run(const MatmulShape& shape, const MatmulArgs& args) {
  LANCET_ASSIGN_OR_RETURN(Plan* const plan, PlanFor(shape, args));
  return Launch(*plan, args, plan->candidates[plan->chosen].algo);
}

absl::StatusOr<std::vector<MatmulCandidate>> MatmulPlans::Candidates(const MatmulShape& shape,
                                                                     const MatmulArgs& args) {
  LANCET_ASSIGN_OR_RETURN(const Plan* const plan, PlanFor(shape, args));
  return plan->candidates;
}

absl::Status MatmulPlans::RunCandidate(const MatmulShape& shape, const MatmulArgs& args,
                                       const MatmulCandidate& candidate) {
  LANCET_ASSIGN_OR_RETURN(Plan* const plan, PlanFor(shape, args));
  return Launch(*plan, args, candidate.algo);
}

absl::Status MatmulPlans::ChooseByTime(Plan& plan, const MatmulArgs& args) {
  const int64_t width = plan.shape.output == MatmulOutput::kBf16 ? 2 : 4;
  const int64_t bytes = plan.shape.tokens * plan.shape.y_stride * width;
  // Not worth an allocation that another request may need.
  if (bytes > ctx_.free_bytes() / 2) return absl::OkStatus();
  LANCET_ASSIGN_OR_RETURN(const auto results, DeviceArray<uint8_t>::Create(bytes));
  LANCET_CUDA_RETURN_IF_ERROR(cudaMemsetAsync(results.data(), 0, static_cast<size_t>(bytes), ctx_.stream()));
  MatmulArgs timed = args;
  timed.y = results.data();
  CudaHandle<cudaEvent_t, cudaEventDestroy> start;
  CudaHandle<cudaEvent_t, cudaEventDestroy> stop;
  LANCET_CUDA_RETURN_IF_ERROR(cudaEventCreate(start.receive()));
  LANCET_CUDA_RETURN_IF_ERROR(cudaEventCreate(stop.receive()));
  double best = 0;
  for (size_t i = 0; i < plan.candidates.size(); ++i) {
    MatmulCandidate& candidate = plan.candidates[i];
    // A candidate that fails on the real shape is passed over.
    if (!Launch(plan, timed, candidate.algo).ok()) continue;
    LANCET_CUDA_RETURN_IF_ERROR(cudaEventRecord(start.get(), ctx_.stream()));
    for (int run = 0; run < kTimedRuns; ++run) {
      LANCET_RETURN_IF_ERROR(Launch(plan, timed, candidate.algo));
    }
    LANCET_CUDA_RETURN_IF_ERROR(cudaEventRecord(stop.get(), ctx_.stream()));
    LANCET_RETURN_IF_ERROR(ctx_.WaitFor(stop.get(), kTimingTimeout));
    float milliseconds = 0;
    LANCET_CUDA_RETURN_IF_ERROR(cudaEventElapsedTime(&milliseconds, start.get(), stop.get()));
    candidate.microseconds = milliseconds * 1000.0 / kTimedRuns;
    if (best > 0 && candidate.microseconds >= best) continue;
    best = candidate.microseconds;
    plan.chosen = i;
  }
  return absl::OkStatus();
}

}  // namespace lancet
