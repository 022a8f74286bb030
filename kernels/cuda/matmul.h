// Dense products through cuBLASLt: y = alpha x w^T [+ bias] [+ y], with weights in bf16, E4M3 (a factor per
// output row and per token) or NVFP4 (block scales, sm_100 and later).
//
// A product is planned once per shape: the library is asked for candidates, those that split K over blocks
// are dropped (their sums depend on the number of rows). From kTimedTokens rows on the others are timed and
// the fastest is kept: all give the same bits; below, the library's first choice is taken. What a device
// cannot do is found by asking, never by version.
#pragma once

#include <cublasLt.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/bf16.h"
#include "kernels/cuda/cuda_context.h"

namespace lancet {

enum class MatmulInput { kBf16, kFp8, kNvfp4 };
enum class MatmulOutput { kBf16, kF32 };

struct MatmulShape {
  MatmulInput input = MatmulInput::kBf16;
  MatmulOutput output = MatmulOutput::kBf16;
  int64_t tokens = 0;
  int64_t rows = 0;      // outputs
  int64_t cols = 0;      // inputs
  int64_t x_stride = 0;  // elements between rows of x; cols for kFp8 and kNvfp4
  int64_t y_stride = 0;
  int64_t w_stride = 0;     // elements between rows of w; 0: cols
  bool has_bias = false;    // bf16 output only
  bool accumulate = false;  // y += ..., rounded once
  // kFp8: sums stay in the tensor cores, whose additions keep fewer bits than f32.
  bool fast_sums = false;

  auto Key() const {
    return std::make_tuple(input, output, tokens, rows, cols, x_stride, y_stride, w_stride, has_bias,
                           accumulate, fast_sums);
  }
  std::string DebugString() const;
};

// Device pointers of one product, 16-byte aligned.
struct MatmulArgs {
  const void* x = nullptr;         // [tokens, cols] bf16, E4M3 bytes or E2M1 pairs
  const void* w = nullptr;         // [rows, cols] likewise
  const void* x_scales = nullptr;  // kFp8: f32 [tokens]; kNvfp4: tiled E4M3
  const void* w_scales = nullptr;  // kFp8: f32 [rows]; kNvfp4: tiled E4M3
  const float* alpha = nullptr;    // kNvfp4: the product of both factors; null elsewhere
  const float* beta = nullptr;     // kNvfp4: 0 or 1, as `accumulate` says; null elsewhere
  const bf16* bias = nullptr;      // [rows]
  void* y = nullptr;               // [tokens, rows] bf16 or f32
};

// One candidate of a plan, as the library describes it.
struct MatmulCandidate {
  cublasLtMatmulAlgo_t algo;
  int id = 0;
  int tile = 0;
  int stages = 0;
  int split_k = 0;
  size_t workspace_bytes = 0;
  double microseconds = 0;  // 0: not timed
};

// Keeps the plans used last, kMaxPlans of them. Dropping one changes no result: which family of kernels
// serves a weight follows from its shape alone. Not thread-safe; one per context.
class MatmulPlans {
 public:
  static constexpr size_t kMaxPlans = 512;
  static constexpr size_t kMaxFamilies = 256;
  static constexpr int64_t kTimedTokens = 256;

  explicit MatmulPlans(const CudaContext& ctx);
  ~MatmulPlans();

  // Enqueues. Plans the shape if it is new, which for many rows waits for the device. Unimplemented if the
  // library offers nothing for it.
  absl::Status Run(const MatmulShape& shape, const MatmulArgs& args);

  // All candidates of a shape, for measurements.
  absl::StatusOr<std::vector<MatmulCandidate>> Candidates(const MatmulShape& shape, const MatmulArgs& args);
  absl::Status RunCandidate(const MatmulShape& shape, const MatmulArgs& args,
                            const MatmulCandidate& candidate);

 private:
  struct Plan;
  absl::StatusOr<Plan*> PlanFor(const MatmulShape& shape, const MatmulArgs& args);
  // What the library offers for a shape, without splits of K. Unimplemented if nothing.
  absl::StatusOr<std::unique_ptr<Plan>> Ask(const MatmulShape& shape, const MatmulArgs& args);
  absl::Status Launch(Plan& plan, const MatmulArgs& args, const cublasLtMatmulAlgo_t& algo);
  // Chooses by time, on the operands given but with results of its own.
  absl::Status ChooseByTime(Plan& plan, const MatmulArgs& args);

  // The family of the shape with the usual number of rows.
  absl::StatusOr<int> FamilyOf(const MatmulShape& shape, const MatmulArgs& args);

  const CudaContext& ctx_;
  std::map<decltype(MatmulShape().Key()), std::unique_ptr<Plan>> plans_;
  std::map<decltype(MatmulShape().Key()), int> families_;  // remembered; asking again gives the same
  uint64_t uses_ = 0;
};

}  // namespace lancet
