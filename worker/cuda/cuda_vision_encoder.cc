#include "worker/cuda/cuda_vision_encoder.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/status_macros.h"
#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/embedding.h"
#include "kernels/cuda/row_ops.h"
#include "kernels/shape_check.h"
#include "worker/model/vision/vision_patches.h"
#include "worker/model/vision/vision_rotary.h"

namespace lancet {
namespace {

constexpr absl::Duration kTimeout = absl::Seconds(60);
constexpr int64_t kMaxPatches = int64_t{1} << 20;

// Calls are filled up to whole multiples of so many patches: products are planned for few different numbers
// of rows, and never for numbers that the library has no usual kernel for.
constexpr int64_t kRowUnit = 64;

int64_t FilledRows(int64_t patches) { return (patches + kRowUnit - 1) / kRowUnit * kRowUnit; }

}  // namespace

absl::StatusOr<std::unique_ptr<CudaVisionEncoder>> CudaVisionEncoder::Load(const CudaContext& ctx,
                                                                           MatmulPlans& matmul,
                                                                           const StateDict& tower,
                                                                           const VisionConfig& config,
                                                                           int64_t max_patches) {
  if (max_patches < 1 || max_patches > kMaxPatches) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_patches is ", max_patches, "; expected 1 to ", kMaxPatches));
  }
  const int64_t d = config.head_dim;
  if ((d != 64 && d != 80 && d != 128) || config.hidden_size % 16 != 0 || config.out_hidden_size % 16 != 0 ||
      config.patch_values() % 8 != 0 || config.intermediate_size > cuda::kMaxRowCols - 16 ||
      config.hidden_size > cuda::kMaxRowCols || kRowUnit % config.cell_patches() != 0) {
    return absl::UnimplementedError(absl::StrCat(
        "the CUDA backend's vision tower takes head_dim 64, 80 or 128 (", d, "), widths in 16s up to ",
        cuda::kMaxRowCols, " (", config.hidden_size, ", ", config.out_hidden_size, "), an inner width up to ",
        cuda::kMaxRowCols - 16, " (", config.intermediate_size, "), patches of values in 8s (",
        config.patch_values(), ") and cells of a power of two up to ", kRowUnit, " patches (",
        config.cell_patches(), ")"));
  }
  LANCET_ASSIGN_OR_RETURN(CudaVisionWeights weights, CudaVisionWeights::Load(ctx, tower, config));
  std::unique_ptr<CudaVisionEncoder> encoder(
      new CudaVisionEncoder(ctx, matmul, config, std::move(weights), max_patches));
  LANCET_RETURN_IF_ERROR(encoder->UploadTables());
  LANCET_RETURN_IF_ERROR(encoder->Reserve());
  return encoder;
}

absl::Status CudaVisionEncoder::UploadTables() {
  // A picture of one cell shows what every byte becomes.
  const auto cell = static_cast<int32_t>(config_.patch_size * config_.merge_size);
  const RgbImage blank{cell, cell, std::vector<uint8_t>(3 * static_cast<size_t>(cell) * cell)};
  LANCET_ASSIGN_OR_RETURN(const PicturePatches patches, PicturePatches::Create(config_, blank));
  std::vector<bf16> values;
  for (int channel = 0; channel < 3; ++channel) {
    for (int pixel = 0; pixel < 256; ++pixel) {
      values.push_back(ToBf16(patches.value_of(channel, static_cast<uint8_t>(pixel))));
    }
  }
  LANCET_ASSIGN_OR_RETURN(value_of_, DeviceArray<bf16>::CopyOf(values, ctx_.stream()));

  const VisionRotaryTable table(config_.head_dim);
  const int64_t angles = table.num_angles();
  const int64_t axis = angles / 2;
  // A frame is at least a cell across.
  const int64_t positions = std::max<int64_t>(max_patches_ / config_.merge_size, 1);
  std::vector<bf16> cos(angles);
  std::vector<bf16> sin(angles);
  std::vector<bf16> all_cos;
  std::vector<bf16> all_sin;
  for (int64_t p = 0; p < positions; ++p) {
    table.Row({static_cast<int32_t>(p), 0}, cos.data(), sin.data());
    all_cos.insert(all_cos.end(), cos.begin(), cos.begin() + axis);
    all_sin.insert(all_sin.end(), sin.begin(), sin.begin() + axis);
  }
  LANCET_ASSIGN_OR_RETURN(cos_, DeviceArray<bf16>::CopyOf(all_cos, ctx_.stream()));
  LANCET_ASSIGN_OR_RETURN(sin_, DeviceArray<bf16>::CopyOf(all_sin, ctx_.stream()));
  return ctx_.Wait(kTimeout);
}

absl::Status CudaVisionEncoder::Reserve() {
  const int64_t rows = FilledRows(max_patches_);
  const int64_t cells = rows / config_.cell_patches();
  const int64_t hidden = config_.hidden_size;
  // A segment holds at least a cell.
  for (Segments* segments : {&windows_, &frames_}) {
    LANCET_ASSIGN_OR_RETURN(segments->blocks, DeviceArray<cuda::AttentionBlock>::Create(cells));
    LANCET_ASSIGN_OR_RETURN(segments->tiles,
                            DeviceArray<cuda::AttentionTile>::Create(cells + rows / cuda::kQueryTile));
  }
  LANCET_ASSIGN_OR_RETURN(
      rgb_, DeviceArray<uint8_t>::Create(max_patches_ * 3 * config_.patch_size * config_.patch_size));
  LANCET_ASSIGN_OR_RETURN(places_, DeviceArray<cuda::PatchPosition>::Create(rows));
  LANCET_ASSIGN_OR_RETURN(cell_of_, DeviceArray<int32_t>::Create(cells));
  LANCET_ASSIGN_OR_RETURN(patches_, DeviceArray<bf16>::Create(rows * config_.patch_values()));
  LANCET_ASSIGN_OR_RETURN(stream_, DeviceArray<bf16>::Create(rows * hidden));
  LANCET_ASSIGN_OR_RETURN(normed_, DeviceArray<bf16>::Create(rows * hidden));
  LANCET_ASSIGN_OR_RETURN(qkv_, DeviceArray<bf16>::Create(rows * 3 * hidden));
  LANCET_ASSIGN_OR_RETURN(attn_, DeviceArray<bf16>::Create(rows * hidden));
  LANCET_ASSIGN_OR_RETURN(gate_up_, DeviceArray<bf16>::Create(rows * 2 * weights_.inner));
  LANCET_ASSIGN_OR_RETURN(inner_, DeviceArray<bf16>::Create(rows * weights_.inner));
  LANCET_ASSIGN_OR_RETURN(merged_, DeviceArray<bf16>::Create(cells * config_.merged_size()));
  LANCET_ASSIGN_OR_RETURN(tokens_, DeviceArray<bf16>::Create(cells * config_.out_hidden_size));
  // Rows behind a picture's belong to no segment: attention leaves there what it finds.
  LANCET_CUDA_RETURN_IF_ERROR(cudaMemsetAsync(attn_.data(), 0, attn_.bytes(), ctx_.stream()));
  return ctx_.Wait(kTimeout);
}

int64_t CudaVisionEncoder::TokensOf(const RgbImage& picture) const {
  const int64_t cell = config_.patch_size * config_.merge_size;
  return picture.width / cell * (picture.height / cell);
}

absl::Status CudaVisionEncoder::PrepareSegments(absl::Span<const int32_t> bounds, Segments& segments) {
  segments.host_blocks.clear();
  segments.host_tiles.clear();
  const int64_t stride = 3 * config_.hidden_size;
  for (size_t i = 0; i + 1 < bounds.size(); ++i) {
    cuda::AttentionBlock block;
    block.base = qkv_.data() + bounds[i] * stride + config_.hidden_size;
    block.v_offset = config_.hidden_size;
    block.kv_stride = stride;
    block.first_row = bounds[i];
    block.num_rows = block.num_keys = bounds[i + 1] - bounds[i];
    for (int32_t first = 0; first < block.num_rows; first += cuda::kQueryTile) {
      segments.host_tiles.push_back({static_cast<int32_t>(i), first});
    }
    segments.host_blocks.push_back(block);
  }
  LANCET_RETURN_IF_ERROR(segments.blocks.CopyFrom(segments.host_blocks, ctx_.stream()));
  return segments.tiles.CopyFrom(segments.host_tiles, ctx_.stream());
}

absl::Status CudaVisionEncoder::Prepare(const VisionLayout& layout) {
  rows_ = FilledRows(layout.patches());
  host_places_.assign(rows_, {});
  for (size_t i = 0; i < layout.places.size(); ++i) {
    host_places_[i] = {layout.places[i].row, layout.places[i].col};
  }
  host_cell_of_.resize(layout.cells.size());
  for (size_t i = 0; i < layout.cells.size(); ++i) {
    host_cell_of_[layout.cells[i]] = static_cast<int32_t>(i);
  }
  LANCET_RETURN_IF_ERROR(places_.CopyFrom(host_places_, ctx_.stream()));
  LANCET_RETURN_IF_ERROR(cell_of_.CopyFrom(host_cell_of_, ctx_.stream()));
  LANCET_RETURN_IF_ERROR(PrepareSegments(layout.windows, windows_));
  return PrepareSegments(layout.frames, frames_);
}

absl::Status CudaVisionEncoder::EncodePicture(const RgbImage& picture, bf16* out) {
  LANCET_ASSIGN_OR_RETURN(const PicturePatches checked, PicturePatches::Create(config_, picture));
  const VisionGrid grid = checked.grid();
  LANCET_ASSIGN_OR_RETURN(const VisionLayout layout, MakeVisionLayout(config_, {&grid, 1}, max_patches_));
  LANCET_RETURN_IF_ERROR(Prepare(layout));
  LANCET_RETURN_IF_ERROR(rgb_.CopyFrom(picture.pixels, ctx_.stream()));
  cuda::CutPatchesArgs cut;
  cut.rgb = rgb_.data();
  cut.width = picture.width;
  cut.places = places_.data();
  cut.value_of = value_of_.data();
  cut.patches = layout.patches();
  cut.rows = rows_;
  cut.side = config_.patch_size;
  cut.frames = config_.temporal_patch_size;
  cut.out = patches_.data();
  LANCET_CUDA_RETURN_IF_ERROR(cuda::CutPatches(cut, ctx_.stream()));
  return Run(layout.patches(), out);
}

absl::Status CudaVisionEncoder::Encode(ConstMatrixView<bf16> patches, absl::Span<const VisionGrid> grids,
                                       bf16* out) {
  LANCET_ASSIGN_OR_RETURN(const VisionLayout layout, MakeVisionLayout(config_, grids, max_patches_));
  LANCET_RETURN_IF_ERROR(
      CheckMatrix("CudaVisionEncoder", "patches", patches, layout.patches(), config_.patch_values()));
  LANCET_RETURN_IF_ERROR(Prepare(layout));
  const int64_t cell = config_.cell_patches();
  std::vector<bf16> ordered(rows_ * patches.cols);
  for (int64_t i = 0; i < layout.patches(); ++i) {
    std::copy_n(patches.row(layout.cells[i / cell] * cell + i % cell), patches.cols,
                ordered.begin() + i * patches.cols);
  }
  LANCET_RETURN_IF_ERROR(patches_.CopyFrom(ordered, ctx_.stream()));
  return Run(layout.patches(), out);
}

absl::Status CudaVisionEncoder::Product(const CudaDense& dense, const bf16* x, int64_t rows, bool accumulate,
                                        bf16* y) {
  MatmulShape shape;
  shape.tokens = rows;
  shape.rows = dense.rows;
  shape.cols = dense.cols;
  shape.x_stride = dense.cols;
  shape.y_stride = dense.rows;
  shape.has_bias = dense.bias.size() > 0;
  shape.accumulate = accumulate;
  MatmulArgs args;
  args.x = x;
  args.w = dense.weight.data();
  args.bias = dense.bias.data();
  args.y = y;
  return matmul_.Run(shape, args);
}

absl::Status CudaVisionEncoder::Norm(const DeviceArray<bf16>& weight) {
  cuda::RowOutput output;
  output.bf16_rows = normed_.data();
  return CudaStatus(cuda::RmsNorm(stream_.data(), config_.hidden_size, weight.data(), kVisionNormEps, rows_,
                                  config_.hidden_size, output, ctx_.stream()),
                    "RMS norm");
}

absl::Status CudaVisionEncoder::Attend(const CudaVisionBlock& block, const Segments& segments) {
  const int64_t hidden = config_.hidden_size;
  LANCET_RETURN_IF_ERROR(Norm(block.norm1));
  LANCET_RETURN_IF_ERROR(Product(block.qkv, normed_.data(), rows_, /*accumulate=*/false, qkv_.data()));
  // q and k lie side by side: heads of one matrix.
  LANCET_CUDA_RETURN_IF_ERROR(cuda::RotateByPlace(places_.data(), cos_.data(), sin_.data(), rows_,
                                                  2 * config_.num_heads, config_.head_dim, 3 * hidden,
                                                  qkv_.data(), ctx_.stream()));
  cuda::FlashArgs args;
  args.q = qkv_.data();
  args.q_stride = 3 * hidden;
  args.out = attn_.data();
  args.out_stride = hidden;
  args.blocks = segments.blocks.data();
  args.tiles = segments.tiles.data();
  args.num_tiles = static_cast<int>(segments.host_tiles.size());
  args.heads = static_cast<int>(config_.num_heads);
  args.head_dim = static_cast<int>(config_.head_dim);
  LANCET_CUDA_RETURN_IF_ERROR(cuda::FlashAttention(args, ctx_.stream()));
  return Product(block.proj, attn_.data(), rows_, /*accumulate=*/true, stream_.data());
}

absl::Status CudaVisionEncoder::Mlp(const CudaVisionBlock& block) {
  LANCET_RETURN_IF_ERROR(Norm(block.norm2));
  LANCET_RETURN_IF_ERROR(
      Product(block.gate_up, normed_.data(), rows_, /*accumulate=*/false, gate_up_.data()));
  cuda::RowOutput output;
  output.bf16_rows = inner_.data();
  LANCET_CUDA_RETURN_IF_ERROR(cuda::SiluMul(gate_up_.data(), rows_, weights_.inner, output, ctx_.stream()));
  return Product(block.down, inner_.data(), rows_, /*accumulate=*/true, stream_.data());
}

absl::Status CudaVisionEncoder::Run(int64_t patches, bf16* out) {
  LANCET_RETURN_IF_ERROR(
      Product(weights_.patch_embed, patches_.data(), rows_, /*accumulate=*/false, stream_.data()));
  for (int64_t i = 0; i < config_.depth; ++i) {
    const CudaVisionBlock& block = weights_.blocks[i];
    LANCET_RETURN_IF_ERROR(Attend(block, config_.IsFullAttention(i) ? frames_ : windows_));
    LANCET_RETURN_IF_ERROR(Mlp(block));
  }
  LANCET_RETURN_IF_ERROR(Norm(weights_.merger_norm));
  // The rows of a cell lie one after the other: read as one row, they are the concatenation.
  const int64_t cells = rows_ / config_.cell_patches();
  LANCET_RETURN_IF_ERROR(
      Product(weights_.merger_in, normed_.data(), cells, /*accumulate=*/false, merged_.data()));
  LANCET_CUDA_RETURN_IF_ERROR(cuda::Gelu(merged_.data(), cells * config_.merged_size(), ctx_.stream()));
  LANCET_RETURN_IF_ERROR(
      Product(weights_.merger_out, merged_.data(), cells, /*accumulate=*/false, tokens_.data()));
  LANCET_CUDA_RETURN_IF_ERROR(cuda::GatherRows(tokens_.data(), cell_of_.data(),
                                               patches / config_.cell_patches(), config_.out_hidden_size, out,
                                               ctx_.stream()));
  return ctx_.Wait(kTimeout);
}

}  // namespace lancet
