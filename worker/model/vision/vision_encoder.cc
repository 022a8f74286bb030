#include "worker/model/vision/vision_encoder.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/status_macros.h"
#include "kernels/activation.h"
#include "kernels/attention.h"
#include "kernels/bf16_gemm.h"
#include "kernels/rms_norm.h"
#include "kernels/rope.h"
#include "kernels/shape_check.h"
#include "worker/model/vision/vision_patches.h"

namespace lancet {
namespace {

constexpr int64_t kRowsAtOnce = 1024;
constexpr int64_t kMaxPatches = int64_t{1} << 20;

std::vector<int32_t> Counting(int64_t count) {
  std::vector<int32_t> numbers(count);
  std::iota(numbers.begin(), numbers.end(), 0);
  return numbers;
}

}  // namespace

absl::StatusOr<std::unique_ptr<VisionEncoder>> VisionEncoder::Load(const KernelContext& ctx,
                                                                   const StateDict& tower,
                                                                   const VisionConfig& config, int rank,
                                                                   int world_size,
                                                                   const VisionEncoderOptions& options) {
  if (options.max_patches < 1 || options.max_patches > kMaxPatches) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_patches is ", options.max_patches, "; expected 1 to ", kMaxPatches));
  }
  LANCET_ASSIGN_OR_RETURN(const VisionShardPlan plan, MakeVisionShardPlan(config, rank, world_size));
  LANCET_ASSIGN_OR_RETURN(VisionWeights weights, VisionWeights::Load(ctx, tower, config, plan));
  return std::unique_ptr<VisionEncoder>(
      new VisionEncoder(ctx, config, plan, std::move(weights), options.max_patches));
}

VisionEncoder::VisionEncoder(const KernelContext& ctx, const VisionConfig& config,
                             const VisionShardPlan& plan, VisionWeights weights, int64_t max_patches)
    : ctx_(ctx),
      config_(config),
      plan_(plan),
      rotary_(config.head_dim),
      weights_(std::move(weights)),
      max_patches_(max_patches),
      kv_head_of_(Counting(plan.heads.size())),
      row_numbers_(Counting(max_patches)) {
  const int64_t rows = RowsAtOnce();
  const int64_t cells = rows / config_.cell_patches();
  patches_.resize(rows * config_.patch_values());
  stream_.resize(max_patches * config_.hidden_size);
  normed_.resize(rows * config_.hidden_size);
  qkv_.resize(max_patches * 3 * plan_.head_cols());
  attn_.resize(max_patches * plan_.head_cols());
  gate_up_.resize(rows * 2 * plan_.inner.size());
  inner_.resize(rows * plan_.inner.size());
  merged_.resize(cells * plan_.merged.size());
  tokens_.resize(cells * config_.out_hidden_size);
  cos_.resize(max_patches * rotary_.num_angles());
  sin_.resize(max_patches * rotary_.num_angles());
}

int64_t VisionEncoder::RowsAtOnce() const {
  const int64_t cell = config_.cell_patches();
  return (std::min(kRowsAtOnce, max_patches_ + cell - 1)) / cell * cell;
}

int64_t VisionEncoder::reduce_capacity() const {
  const int64_t rows = RowsAtOnce();
  return std::max(rows * config_.hidden_size, rows / config_.cell_patches() * config_.out_hidden_size);
}

int64_t VisionEncoder::TokensOf(const RgbImage& picture) const {
  const int64_t cell = config_.patch_size * config_.merge_size;
  return picture.width / cell * (picture.height / cell);
}

MatrixView<bf16> VisionEncoder::Stream(int64_t begin, int64_t count) {
  return MatrixView<bf16>(stream_.data() + begin * config_.hidden_size, count, config_.hidden_size);
}

absl::Status VisionEncoder::EncodePicture(const RgbImage& picture, Collective& collective,
                                          absl::Duration timeout, MatrixView<bf16> out) {
  LANCET_ASSIGN_OR_RETURN(const PicturePatches patches, PicturePatches::Create(config_, picture));
  const VisionGrid grid = patches.grid();
  return EncodeFrom([&](int64_t index, bf16* patch) { patches.Fill(index, patch); }, {&grid, 1}, collective,
                    timeout, out);
}

absl::Status VisionEncoder::Encode(ConstMatrixView<bf16> patches, absl::Span<const VisionGrid> grids,
                                   Collective& collective, absl::Duration timeout, MatrixView<bf16> out) {
  const int64_t rows = out.rows * config_.cell_patches();
  LANCET_RETURN_IF_ERROR(CheckMatrix("VisionEncoder", "patches", patches, rows, config_.patch_values()));
  return EncodeFrom([&](int64_t index, bf16* patch) { std::copy_n(patches.row(index), patches.cols, patch); },
                    grids, collective, timeout, out);
}

absl::Status VisionEncoder::EncodeFrom(PatchSource source, absl::Span<const VisionGrid> grids,
                                       Collective& collective, absl::Duration timeout, MatrixView<bf16> out) {
  LANCET_ASSIGN_OR_RETURN(const VisionLayout layout, MakeVisionLayout(config_, grids, max_patches_));
  LANCET_RETURN_IF_ERROR(CheckMatrix("VisionEncoder", "out", out, layout.patches() / config_.cell_patches(),
                                     config_.out_hidden_size));
  const Run run{layout, collective, timeout};
  const int64_t angles = rotary_.num_angles();
  for (int64_t i = 0; i < layout.patches(); ++i) {
    rotary_.Row(layout.places[i], cos_.data() + i * angles, sin_.data() + i * angles);
  }
  LANCET_RETURN_IF_ERROR(Embed(run, source));
  for (int64_t block = 0; block < config_.depth; ++block) {
    LANCET_RETURN_IF_ERROR(Attend(run, block));
    LANCET_RETURN_IF_ERROR(Mlp(run, block));
  }
  return Merge(run, out);
}

absl::Status VisionEncoder::Embed(const Run& run, PatchSource source) {
  const int64_t cell = config_.cell_patches();
  for (int64_t begin = 0; begin < run.layout.patches(); begin += RowsAtOnce()) {
    const int64_t count = std::min(run.layout.patches() - begin, RowsAtOnce());
    const MatrixView<bf16> patches(patches_.data(), count, config_.patch_values());
    ctx_.pool().ParallelFor(count, 16, [&](int64_t first, int64_t last, int /*thread*/) {
      for (int64_t i = first; i < last; ++i) {
        const int64_t place = begin + i;
        source(run.layout.cells[place / cell] * cell + place % cell, patches.row(i));
      }
    });
    LANCET_RETURN_IF_ERROR(Bf16Gemm(ctx_, patches, weights_.patch_embed, {}, Stream(begin, count)));
  }
  return absl::OkStatus();
}

absl::StatusOr<ConstMatrixView<float>> VisionEncoder::SumOverRanks(const Run& run, const Bf16Weights& weight,
                                                                   ConstMatrixView<bf16> x) {
  const int64_t cols = weight.rows();
  LANCET_ASSIGN_OR_RETURN(const absl::Span<float> partial, run.collective.PartialSumBuffer(x.rows * cols));
  LANCET_RETURN_IF_ERROR(Bf16Gemm(ctx_, x, weight, MatrixView<float>(partial.data(), x.rows, cols)));
  LANCET_ASSIGN_OR_RETURN(const absl::Span<const float> total,
                          run.collective.AllReduceSum(partial, absl::Now() + run.timeout));
  return ConstMatrixView<float>(total.data(), x.rows, cols);
}

absl::Status VisionEncoder::Attend(const Run& run, int64_t block) {
  const VisionBlockWeights& w = weights_.blocks[block];
  const int64_t patches = run.layout.patches();
  const int64_t hidden = config_.hidden_size;
  const int64_t cols = plan_.head_cols();
  const int64_t angles = rotary_.num_angles();
  for (int64_t begin = 0; begin < patches && cols > 0; begin += RowsAtOnce()) {
    const int64_t count = std::min(patches - begin, RowsAtOnce());
    const MatrixView<bf16> normed(normed_.data(), count, hidden);
    const MatrixView<bf16> qkv(qkv_.data() + begin * 3 * cols, count, 3 * cols);
    LANCET_RETURN_IF_ERROR(RmsNorm(ctx_, Stream(begin, count), w.norm1, kVisionNormEps, normed));
    LANCET_RETURN_IF_ERROR(Bf16Gemm(ctx_, normed, w.qkv.weight, w.qkv.bias, qkv));
    // q and k lie side by side: heads of one matrix.
    LANCET_RETURN_IF_ERROR(Rope(ctx_, qkv.Cols(0, 2 * cols), 2 * plan_.heads.size(),
                                ConstMatrixView<bf16>(cos_.data() + begin * angles, count, angles),
                                ConstMatrixView<bf16>(sin_.data() + begin * angles, count, angles)));
  }
  LANCET_RETURN_IF_ERROR(
      AttendSegments(run, config_.IsFullAttention(block) ? run.layout.frames : run.layout.windows));
  for (int64_t begin = 0; begin < patches; begin += RowsAtOnce()) {
    const int64_t count = std::min(patches - begin, RowsAtOnce());
    const ConstMatrixView<bf16> attn(attn_.data() + begin * cols, count, cols);
    LANCET_ASSIGN_OR_RETURN(const ConstMatrixView<float> sums, SumOverRanks(run, w.proj, attn));
    LANCET_RETURN_IF_ERROR(AddResidual(ctx_, sums, w.proj_bias, Stream(begin, count)));
  }
  return absl::OkStatus();
}

absl::Status VisionEncoder::AttendSegments(const Run& run, absl::Span<const int32_t> bounds) {
  const int64_t patches = run.layout.patches();
  const int64_t cols = plan_.head_cols();
  if (cols == 0) return absl::OkStatus();
  const MatrixView<bf16> qkv(qkv_.data(), patches, 3 * cols);
  AttentionArgs args;
  args.head_dim = config_.head_dim;
  args.kv_head_of = kv_head_of_;
  args.q = qkv.Cols(0, cols);
  args.k = qkv.Cols(cols, cols);
  args.v = qkv.Cols(2 * cols, cols);
  std::vector<AttentionBlock> segments;
  for (size_t segment = 0; segment + 1 < bounds.size(); ++segment) {
    segments.emplace_back().rows =
        absl::MakeConstSpan(row_numbers_).subspan(bounds[segment], bounds[segment + 1] - bounds[segment]);
  }
  args.blocks = segments;
  return Attention(ctx_, args, MatrixView<bf16>(attn_.data(), patches, cols));
}

absl::Status VisionEncoder::Mlp(const Run& run, int64_t block) {
  const VisionBlockWeights& w = weights_.blocks[block];
  const int64_t hidden = config_.hidden_size;
  const int64_t inner = plan_.inner.size();
  for (int64_t begin = 0; begin < run.layout.patches(); begin += RowsAtOnce()) {
    const int64_t count = std::min(run.layout.patches() - begin, RowsAtOnce());
    const MatrixView<bf16> activated(inner_.data(), count, inner);
    if (inner > 0) {
      const MatrixView<bf16> normed(normed_.data(), count, hidden);
      const MatrixView<bf16> gate_up(gate_up_.data(), count, 2 * inner);
      LANCET_RETURN_IF_ERROR(RmsNorm(ctx_, Stream(begin, count), w.norm2, kVisionNormEps, normed));
      LANCET_RETURN_IF_ERROR(Bf16Gemm(ctx_, normed, w.gate_up.weight, w.gate_up.bias, gate_up));
      LANCET_RETURN_IF_ERROR(SiluMul(ctx_, gate_up, activated));
    }
    LANCET_ASSIGN_OR_RETURN(const ConstMatrixView<float> sums, SumOverRanks(run, w.down, activated));
    LANCET_RETURN_IF_ERROR(AddResidual(ctx_, sums, w.down_bias, Stream(begin, count)));
  }
  return absl::OkStatus();
}

absl::Status VisionEncoder::Merge(const Run& run, MatrixView<bf16> out) {
  const int64_t cell = config_.cell_patches();
  for (int64_t begin = 0; begin < run.layout.patches(); begin += RowsAtOnce()) {
    const int64_t count = std::min(run.layout.patches() - begin, RowsAtOnce());
    const int64_t cells = count / cell;
    const MatrixView<bf16> merged(merged_.data(), cells, plan_.merged.size());
    if (merged.cols > 0) {
      LANCET_RETURN_IF_ERROR(RmsNorm(ctx_, Stream(begin, count), weights_.merger_norm, kVisionNormEps,
                                     MatrixView<bf16>(normed_.data(), count, config_.hidden_size)));
      // The rows of a cell lie one after the other: read as one row, they are the concatenation.
      const ConstMatrixView<bf16> joined(normed_.data(), cells, config_.merged_size());
      LANCET_RETURN_IF_ERROR(
          Bf16Gemm(ctx_, joined, weights_.merger_in.weight, weights_.merger_in.bias, merged));
      LANCET_RETURN_IF_ERROR(Gelu(ctx_, merged));
    }
    LANCET_ASSIGN_OR_RETURN(const ConstMatrixView<float> sums,
                            SumOverRanks(run, weights_.merger_out, merged));
    const MatrixView<bf16> tokens(tokens_.data(), cells, config_.out_hidden_size);
    LANCET_RETURN_IF_ERROR(AddBias(ctx_, sums, weights_.merger_out_bias, tokens));
    for (int64_t i = 0; i < cells; ++i) {
      std::copy_n(tokens.row(i), tokens.cols, out.row(run.layout.cells[begin / cell + i]));
    }
  }
  return absl::OkStatus();
}

}  // namespace lancet
