#include "worker/cuda/cuda_trunk.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/few_rows_linear.h"
#include "kernels/cuda/gated_product.h"
#include "kernels/cuda/qk_rope.h"
#include "kernels/cuda/rope_table.h"
#include "kernels/scale_tiles.h"
#include "worker/model/rope_table.h"

namespace lancet {
namespace {

int64_t QkvCols(const ModelConfig& config) {
  return (config.num_heads + 2 * config.num_kv_heads) * config.head_dim;
}
int64_t QCols(const ModelConfig& config) { return config.num_heads * config.head_dim; }

}  // namespace

absl::StatusOr<std::unique_ptr<CudaTrunk>> CudaTrunk::Create(const CudaContext& ctx,
                                                             const ModelConfig& config,
                                                             CudaTrunkWeights weights, CudaProducts products,
                                                             int64_t max_rows, int64_t max_blocks) {
  const int64_t group = config.num_kv_heads > 0 ? config.num_heads / config.num_kv_heads : 0;
  if (group < 1 || group > cuda::kMaxGroup || (config.head_dim != 128 && config.head_dim != 64) ||
      config.hidden_size % 64 != 0 || config.hidden_size > cuda::kMaxRowCols ||
      config.intermediate_size > cuda::kMaxFewRowsCols) {
    return absl::UnimplementedError(absl::StrCat(
        "the CUDA backend takes head_dim 64 or 128 (", config.head_dim, "), up to ", cuda::kMaxGroup,
        " query heads per key/value head (", group, "), a hidden size in 64s up to ", cuda::kMaxRowCols, " (",
        config.hidden_size, ") and an inner width up to ", cuda::kMaxFewRowsCols, " (",
        config.intermediate_size, ")"));
  }
  std::unique_ptr<CudaTrunk> trunk(new CudaTrunk(ctx, config, std::move(weights)));
  trunk->max_rows_ = max_rows;
  trunk->few_capacity_ = 2 * max_blocks;
  trunk->has_gated_product_ = cuda::HasGatedProduct(config.intermediate_size, config.hidden_size);
  const int64_t widest = std::max({config.hidden_size, config.intermediate_size, QCols(config)});
  const int64_t half = config.head_dim / 2;
  LANCET_ASSIGN_OR_RETURN(trunk->tables_, CudaPassTables::Create(max_rows, max_blocks));
  LANCET_ASSIGN_OR_RETURN(trunk->stream_, DeviceArray<bf16>::Create(max_rows * config.hidden_size));
  LANCET_ASSIGN_OR_RETURN(trunk->activation_, DeviceArray<bf16>::Create(max_rows * widest));
  if (products != CudaProducts::kBf16) {
    LANCET_ASSIGN_OR_RETURN(trunk->fp8_, DeviceArray<uint8_t>::Create(max_rows * widest));
    LANCET_ASSIGN_OR_RETURN(trunk->factors_, DeviceArray<float>::Create(max_rows));
    // Zeros: padding that no row writes must not hold a NaN.
    const std::vector<uint8_t> zeros(ScaleTileBytes(max_rows, widest / kNvfp4Block));
    LANCET_ASSIGN_OR_RETURN(trunk->fp4_scales_, DeviceArray<uint8_t>::CopyOf(zeros, ctx.stream()));
    const std::vector<float> constants = {0.0f, 1.0f};
    LANCET_ASSIGN_OR_RETURN(trunk->constants_, DeviceArray<float>::CopyOf(constants, ctx.stream()));
  }
  LANCET_ASSIGN_OR_RETURN(trunk->qkv_, DeviceArray<bf16>::Create(max_rows * QkvCols(config)));
  LANCET_ASSIGN_OR_RETURN(trunk->attn_, DeviceArray<bf16>::Create(max_rows * QCols(config)));
  LANCET_ASSIGN_OR_RETURN(trunk->gate_up_,
                          DeviceArray<bf16>::Create(max_rows * 2 * config.intermediate_size));
  LANCET_ASSIGN_OR_RETURN(trunk->cos_, DeviceArray<bf16>::Create(max_rows * half));
  LANCET_ASSIGN_OR_RETURN(trunk->sin_, DeviceArray<bf16>::Create(max_rows * half));
  const std::vector<float> frequencies = RopeTable(config).inverse_frequencies();
  LANCET_ASSIGN_OR_RETURN(trunk->inverse_frequency_, DeviceArray<float>::CopyOf(frequencies, ctx.stream()));
  LANCET_ASSIGN_OR_RETURN(trunk->few_inner_,
                          DeviceArray<bf16>::Create(cuda::kMaxFewRows * config.intermediate_size));
  int least_priority = 0;
  int greatest_priority = 0;
  LANCET_CUDA_RETURN_IF_ERROR(cudaDeviceGetStreamPriorityRange(&least_priority, &greatest_priority));
  // Few rows are a chain of short launches, which must not queue behind the blocks of large products.
  LANCET_CUDA_RETURN_IF_ERROR(
      cudaStreamCreateWithPriority(trunk->beside_.receive(), cudaStreamNonBlocking, greatest_priority));
  LANCET_CUDA_RETURN_IF_ERROR(cudaStreamCreateWithFlags(trunk->paired_.receive(), cudaStreamNonBlocking));
  LANCET_CUDNN_RETURN_IF_ERROR(cudnnCreate(trunk->paired_handle_.receive()));
  LANCET_CUDNN_RETURN_IF_ERROR(cudnnSetStream(trunk->paired_handle_.get(), trunk->paired_.get()));
  trunk->paired_cudnn_.emplace(trunk->paired_handle_.get());
  LANCET_CUDA_RETURN_IF_ERROR(
      cudaStreamCreateWithPriority(trunk->fetches_.receive(), cudaStreamNonBlocking, greatest_priority));
  for (auto* event : {&trunk->many_done_, &trunk->few_done_, &trunk->paired_done_, &trunk->products_done_[0],
                      &trunk->products_done_[1], &trunk->fetched_[0], &trunk->fetched_[1]}) {
    LANCET_CUDA_RETURN_IF_ERROR(cudaEventCreateWithFlags(event->receive(), cudaEventDisableTiming));
  }
  LANCET_RETURN_IF_ERROR(ctx.Wait(absl::Seconds(30)));
  return trunk;
}

absl::Status CudaTrunk::Prepare(const CudaPass& pass, const CudaPassInputs& inputs, absl::Duration timeout) {
  if (pass.rows() > max_rows_ || pass.few_rows() > few_capacity_) {
    return absl::InvalidArgumentError(absl::StrCat("a pass of ", pass.rows(), " rows, ", pass.few_rows(),
                                                   " of them single; this rank has scratch for ", max_rows_,
                                                   " and ", few_capacity_));
  }
  LANCET_RETURN_IF_ERROR(pass.Check());
  if (group_ != nullptr) LANCET_RETURN_IF_ERROR(group_->Align());
  return tables_.Upload(pass, inputs, timeout, ctx_);
}

void CudaTrunk::AppendShape(std::vector<int64_t>& key) const {
  tables_.AppendShape(key);
  key.push_back((choices_.side_streams ? 1 : 0) + (choices_.gated_product ? 2 : 0) +
                (choices_.fast_fp8_sums ? 4 : 0) + (choices_.halves ? 8 : 0));
  key.push_back(cudnn_works_ ? cudnn_.generation() : -1);
  key.push_back(paired_cudnn_->generation());
  key.push_back(group_generation_);
}

absl::Status CudaTrunk::Join(cudaStream_t waiting, cudaStream_t stream, cudaEvent_t event) {
  LANCET_CUDA_RETURN_IF_ERROR(cudaEventRecord(event, stream));
  return CudaStatus(cudaStreamWaitEvent(waiting, event, 0), "cudaStreamWaitEvent");
}

cuda::RowOutput CudaTrunk::Activations(const CudaLinear& linear) const {
  cuda::RowOutput output;
  if (linear.fp8() != nullptr) {
    output.fp8_rows = fp8_.data();
    output.fp8_factors = factors_.data();
  } else if (linear.nvfp4_codes() != nullptr) {
    // A factor measured over the tensor would make a row depend on the others. Blocks have scales of their
    // own, which at factor 1, taken where calibration gives none, are normal E4M3 numbers for magnitudes from
    // 0.1 to 2688.
    output.fp4_codes = fp8_.data();
    output.fp4_scales = fp4_scales_.data();
    output.fp4_factor = linear.nvfp4_activation_factor();
  } else {
    output.bf16_rows = activation_.data();
  }
  return output;
}

absl::Status CudaTrunk::Product(const CudaLinear& linear, const bf16* x, int64_t rows, bool accumulate,
                                MatmulOutput output, void* y) {
  MatmulShape shape;
  shape.output = output;
  shape.tokens = rows;
  shape.rows = linear.rows();
  shape.cols = linear.cols();
  shape.x_stride = linear.cols();
  shape.y_stride = linear.rows();
  shape.has_bias = linear.bias() != nullptr;
  shape.accumulate = accumulate;
  MatmulArgs args;
  args.bias = linear.bias();
  args.y = y;
  if (linear.nvfp4_codes() != nullptr) {
    shape.input = MatmulInput::kNvfp4;
    args.x = fp8_.data();
    args.x_scales = fp4_scales_.data();
    args.w = linear.nvfp4_codes();
    args.w_scales = linear.nvfp4_scales();
    args.alpha = linear.nvfp4_alpha();
    args.beta = constants_.data() + (accumulate ? 1 : 0);
  } else if (linear.fp8() != nullptr) {
    shape.input = MatmulInput::kFp8;
    shape.fast_sums = choices_.fast_fp8_sums;
    args.x = fp8_.data();
    args.x_scales = factors_.data();
    args.w = linear.fp8();
    args.w_scales = linear.fp8_factors();
  } else {
    args.x = x;
    args.w = linear.dense();
  }
  return matmul_.Run(shape, args);
}

absl::Status CudaTrunk::Dense(const CudaDense& dense, const bf16* x, int64_t rows, bf16* y) {
  MatmulShape shape;
  shape.tokens = rows;
  shape.rows = dense.rows;
  shape.cols = dense.cols;
  shape.x_stride = dense.cols;
  shape.y_stride = dense.rows;
  shape.has_bias = true;
  MatmulArgs args;
  args.x = x;
  args.w = dense.weight.data();
  args.bias = dense.bias.data();
  args.y = y;
  return matmul_.Run(shape, args);
}

// --- Few rows, in groups that one launch takes. ---

absl::Status CudaTrunk::FewQkv(const Rows& rows, bool overlaps) {
  for (int64_t first = 0; first < rows.count; first += cuda::kMaxFewRows) {
    cuda::FewRowsArgs args;
    args.x = stream_rows(rows.first + first);
    args.x_stride = config_.hidden_size;
    args.tokens = static_cast<int>(std::min<int64_t>(cuda::kMaxFewRows, rows.count - first));
    args.norm = rows.expert->input_norm.data();
    args.eps = config_.rms_norm_eps;
    rows.expert->qkv.SetWeights(args);
    args.bias = rows.expert->qkv.bias();
    args.y = qkv_.data() + (rows.first + first) * args.rows;
    args.y_stride = args.rows;
    args.overlap = overlaps || first > 0 ? cuda::LaunchOverlap::kOne : cuda::LaunchOverlap::kNone;
    LANCET_CUDA_RETURN_IF_ERROR(cuda::FewRowsLinear(args, few_stream_));
  }
  return absl::OkStatus();
}

absl::Status CudaTrunk::FewOut(const Rows& rows) {
  for (int64_t first = 0; first < rows.count; first += cuda::kMaxFewRows) {
    cuda::FewRowsArgs args;
    args.x_stride = rows.expert->o.cols();
    args.x = attn_.data() + (rows.first + first) * args.x_stride;
    args.tokens = static_cast<int>(std::min<int64_t>(cuda::kMaxFewRows, rows.count - first));
    rows.expert->o.SetWeights(args);
    PutFew(rows.first + first, args);
    LANCET_CUDA_RETURN_IF_ERROR(cuda::FewRowsLinear(args, few_stream_));
  }
  return absl::OkStatus();
}

absl::Status CudaTrunk::FewMlp(const Rows& rows) {
  const int64_t inner = config_.intermediate_size;
  for (int64_t first = 0; first < rows.count; first += cuda::kMaxFewRows) {
    cuda::FewRowsArgs args;
    args.x = stream_rows(rows.first + first);
    args.x_stride = config_.hidden_size;
    args.tokens = static_cast<int>(std::min<int64_t>(cuda::kMaxFewRows, rows.count - first));
    args.norm = rows.expert->post_norm.data();
    args.eps = config_.rms_norm_eps;
    rows.expert->gate_up.SetWeights(args);
    args.output = cuda::FewRowsOutput::kSiluMul;
    args.y = few_inner_.data();
    args.y_stride = inner;
    LANCET_CUDA_RETURN_IF_ERROR(cuda::FewRowsLinear(args, few_stream_));
    args.x = few_inner_.data();
    args.x_stride = inner;
    args.norm = nullptr;
    rows.expert->down.SetWeights(args);
    PutFew(rows.first + first, args);
    LANCET_CUDA_RETURN_IF_ERROR(cuda::FewRowsLinear(args, few_stream_));
  }
  return absl::OkStatus();
}

// --- Many rows. ---

absl::Status CudaTrunk::ManyQkv(const Rows& rows) {
  if (rows.count == 0) return absl::OkStatus();
  LANCET_ASSIGN_OR_RETURN(const bf16* const x, Norm(rows, rows.expert->input_norm, rows.expert->qkv));
  return Product(rows.expert->qkv, x, rows.count, /*accumulate=*/false, MatmulOutput::kBf16,
                 qkv_.data() + rows.first * rows.expert->qkv.rows());
}

absl::Status CudaTrunk::ManyOut(const Rows& rows) {
  if (rows.count == 0) return absl::OkStatus();
  const int64_t cols = rows.expert->o.cols();
  const bf16* x = attn_.data() + rows.first * cols;
  if (rows.expert->o.dense() == nullptr) {
    LANCET_CUDA_RETURN_IF_ERROR(
        cuda::QuantiseRows(x, cols, rows.count, cols, Activations(rows.expert->o), ctx_.stream()));
  }
  return AddProduct(rows.expert->o, x, rows);
}

absl::Status CudaTrunk::ManyMlp(const Rows& rows) {
  if (rows.count == 0) return absl::OkStatus();
  LANCET_ASSIGN_OR_RETURN(const bf16* const x, Norm(rows, rows.expert->post_norm, rows.expert->gate_up));
  const CudaLinear& gate_up = rows.expert->gate_up;
  const CudaLinear& down = rows.expert->down;
  const bool in_fp8 = gate_up.fp8() != nullptr && down.fp8() != nullptr;
  const bool in_bf16 = gate_up.dense() != nullptr && down.dense() != nullptr;
  if (has_gated_product_ && choices_.gated_product && (in_fp8 || in_bf16)) {
    cuda::GatedProductArgs args;
    args.y = gate_up_.data();
    args.tokens = rows.count;
    args.inner = config_.intermediate_size;
    args.cols = config_.hidden_size;
    if (in_fp8) {
      args.x = fp8_.data();
      args.x_factors = factors_.data();
      args.gate_up = gate_up.fp8();
      args.gate_up_factors = gate_up.fp8_factors();
    } else {
      args.x = x;
      args.gate_up = gate_up.dense();
    }
    LANCET_CUDA_RETURN_IF_ERROR(cuda::GatedProduct(args, ctx_.stream()));
    if (in_fp8) {
      LANCET_CUDA_RETURN_IF_ERROR(cuda::QuantiseRows(gate_up_.data(), args.inner, rows.count, args.inner,
                                                     Activations(down), ctx_.stream()));
    }
    return AddProduct(down, gate_up_.data(), rows);
  }
  LANCET_RETURN_IF_ERROR(
      Product(gate_up, x, rows.count, /*accumulate=*/false, MatmulOutput::kBf16, gate_up_.data()));
  LANCET_CUDA_RETURN_IF_ERROR(cuda::SiluMul(gate_up_.data(), rows.count, config_.intermediate_size,
                                            Activations(rows.expert->down), ctx_.stream()));
  return AddProduct(rows.expert->down, activation_.data(), rows);
}

absl::StatusOr<const bf16*> CudaTrunk::Norm(const Rows& rows, const DeviceArray<bf16>& weight,
                                            const CudaLinear& next) {
  if (normed_by_sum_) return normed_.data() + (rows.first - few_sum_.rows) * config_.hidden_size;
  LANCET_CUDA_RETURN_IF_ERROR(cuda::RmsNorm(stream_rows(rows.first), config_.hidden_size, weight.data(),
                                            config_.rms_norm_eps, rows.count, config_.hidden_size,
                                            Activations(next), ctx_.stream()));
  return activation_.data();
}

// --- Attention. ---

cuda::QkRopeArgs CudaTrunk::RopeArgs(const Rows& rows, int layer) const {
  const int64_t half = config_.head_dim / 2;
  cuda::QkRopeArgs args;
  args.stride = QkvCols(config_);
  args.qkv = qkv_.data() + rows.first * args.stride;
  args.rows = rows.count;
  args.heads = static_cast<int>(config_.num_heads);
  args.kv_heads = static_cast<int>(config_.num_kv_heads);
  args.head_dim = static_cast<int>(config_.head_dim);
  args.q_norm = rows.expert->q_norm.data();
  args.k_norm = rows.expert->k_norm.data();
  args.eps = config_.rms_norm_eps;
  args.cos = cos_.data() + rows.first * half;
  args.sin = sin_.data() + rows.first * half;
  args.wide = tables_.wide() + rows.first;
  args.slots = tables_.slots() + rows.first;
  args.layer = layer;
  return args;
}

absl::Status CudaTrunk::AttendLarge(int layer, size_t first, size_t count) {
  const bool pairs = choices_.side_streams && count > 1;
  if (pairs) LANCET_RETURN_IF_ERROR(Join(paired_.get(), ctx_.stream(), many_done_.get()));
  bool odd = false;
  for (size_t i = first; i < first + count; ++i) {
    const cuda::AttentionBlock& block = tables_.large_blocks()[i];
    PictureAttentionArgs args;
    args.q_stride = QkvCols(config_);
    args.q = qkv_.data() + block.first_row * args.q_stride;
    args.k = block.base + layer * block.layer_stride;
    args.v = args.k + block.v_offset;
    args.kv_stride = block.kv_stride;
    args.out_stride = QCols(config_);
    args.out = attn_.data() + block.first_row * args.out_stride;
    args.rows = block.num_rows;
    args.keys = block.num_keys;
    args.heads = config_.num_heads;
    args.kv_heads = config_.num_kv_heads;
    args.head_dim = config_.head_dim;
    LANCET_RETURN_IF_ERROR(odd ? paired_cudnn_->Run(args) : cudnn_.Run(args));
    odd = pairs && !odd;
  }
  if (pairs) LANCET_RETURN_IF_ERROR(Join(ctx_.stream(), paired_.get(), paired_done_.get()));
  return absl::OkStatus();
}

absl::Status CudaTrunk::AttendFew(const Rows& few, int layer, bool fresh) {
  if (tables_.num_single_rows() == 0) return absl::OkStatus();
  const bool alone = few_stream_ == ctx_.stream();
  cuda::SplitArgs args;
  args.fresh = fresh;
  if (fresh) args.rope = RopeArgs(few, layer);
  args.q = qkv_.data();
  args.q_stride = QkvCols(config_);
  args.out = attn_.data();
  args.out_stride = QCols(config_);
  args.blocks = tables_.blocks();
  args.rows = tables_.single_rows();
  args.num_rows = tables_.num_single_rows();
  args.kv_heads = static_cast<int>(config_.num_kv_heads);
  args.group = static_cast<int>(config_.num_heads / config_.num_kv_heads);
  args.head_dim = static_cast<int>(config_.head_dim);
  args.layer = layer;
  args.overlap = alone ? cuda::LaunchOverlap::kOne : cuda::LaunchOverlap::kNone;
  return CudaStatus(cuda::SplitAttention(args, few_stream_), "split attention");
}

absl::Status CudaTrunk::AttendMany(int layer, bool small, size_t first, size_t count) {
  // Tiles of large blocks lie behind the others, in the blocks' order.
  const auto tiles_of = [&](size_t from, size_t to) {
    int tiles = 0;
    for (size_t i = from; i < to; ++i) {
      tiles += (tables_.large_blocks()[i].num_rows + cuda::kQueryTile - 1) / cuda::kQueryTile;
    }
    return tiles;
  };
  const int begin = small ? 0 : tables_.num_small_tiles() + tiles_of(0, first);
  int end = tables_.num_small_tiles() + tiles_of(0, first + count);
  if (cudnn_works_ && count > 0) {
    const absl::Status status = AttendLarge(layer, first, count);
    if (status.ok()) {
      end = small ? tables_.num_small_tiles() : begin;
    } else {
      LogWarning("cuDNN attention is not used", {{"reason", std::string(status.message())}});
      cudnn_works_ = false;
    }
  }
  cuda::FlashArgs args;
  args.q = qkv_.data();
  args.q_stride = QkvCols(config_);
  args.out = attn_.data();
  args.out_stride = QCols(config_);
  args.blocks = tables_.blocks();
  args.tiles = tables_.tiles() + begin;
  args.num_tiles = end - begin;
  args.heads = static_cast<int>(config_.num_heads);
  args.group = static_cast<int>(config_.num_heads / config_.num_kv_heads);
  args.head_dim = static_cast<int>(config_.head_dim);
  args.layer = layer;
  return CudaStatus(cuda::FlashAttention(args, ctx_.stream()), "attention");
}

absl::Status CudaTrunk::Trace(int64_t rows) {
  if (few_stream_ != ctx_.stream()) {
    LANCET_RETURN_IF_ERROR(Join(ctx_.stream(), few_stream_, few_done_.get()));
  }
  const auto read = [&](const DeviceArray<bf16>& from, int64_t cols, std::vector<bf16>& to) {
    to.resize(rows * cols);
    return from.CopyTo(absl::MakeSpan(to), ctx_.stream());
  };
  LANCET_RETURN_IF_ERROR(read(qkv_, QkvCols(config_), trace_->qkv));
  LANCET_RETURN_IF_ERROR(read(attn_, QCols(config_), trace_->attn));
  LANCET_RETURN_IF_ERROR(read(stream_, config_.hidden_size, trace_->mid));
  return ctx_.Wait(absl::Seconds(60));
}

absl::Status CudaTrunk::Forward(const CudaPass& pass) {
  const cudaStream_t main = ctx_.stream();
  // A chain of few rows costs latency, the others arithmetic: beside each other the chain is free.
  const bool beside = choices_.side_streams && pass.few_rows() > 0 && pass.rows() > pass.few_rows() &&
                      (group_ == nullptr || group_->lanes_overlap());
  few_stream_ = beside ? beside_.get() : main;
  if (group_ != nullptr) group_->Rewind();
  few_sum_ = {DeviceLane::kFew, /*is_f32=*/true, pass.few_rows(), config_.hidden_size};
  many_sum_ = {DeviceLane::kMany, f32_partials_, pass.rows() - pass.few_rows(), config_.hidden_size};
  normed_by_sum_ = false;
  cuda::RopeTableArgs rope;
  rope.t = tables_.t();
  rope.h = tables_.h();
  rope.w = tables_.w();
  rope.rows = pass.rows();
  rope.inverse_frequency = inverse_frequency_.data();
  rope.frequencies = static_cast<int>(config_.head_dim / 2);
  rope.t_section = config_.mrope_section[0];
  rope.h_section = config_.mrope_section[1];
  rope.cos = cos_.data();
  rope.sin = sin_.data();
  LANCET_CUDA_RETURN_IF_ERROR(cuda::FillRopeTable(rope, main));
  if (beside) LANCET_RETURN_IF_ERROR(Join(few_stream_, main, many_done_.get()));
  if (const std::array<Half, 2> halves = SplitHalves(pass); beside && halves[1].rows.count > 0) {
    LANCET_RETURN_IF_ERROR(ForwardHalves(pass, halves));
    return Join(main, few_stream_, few_done_.get());
  }
  for (int64_t layer = 0; layer < config_.num_layers; ++layer) {
    const CudaTrunkWeights::Layer& weights = weights_.layers[layer];
    const Rows few = {0, pass.few_rows(), &weights.und};
    const Rows many = {pass.few_rows(), pass.many_rows(), &weights.und};
    const Rows gen = {pass.und_rows(), pass.gen_rows(), &weights.gen};
    LANCET_RETURN_IF_ERROR(FewQkv(few, /*overlaps=*/!beside || layer > 0));
    LANCET_RETURN_IF_ERROR(ManyQkv(many));
    LANCET_RETURN_IF_ERROR(ManyQkv(gen));
    // Where all rows are single ones of their own blocks, attention rotates them on the way.
    const bool fresh = tables_.only_answers();
    const int index = static_cast<int>(layer);
    if (!fresh) {
      LANCET_CUDA_RETURN_IF_ERROR(cuda::QkNormRope(RopeArgs(few, index), few_stream_));
      LANCET_CUDA_RETURN_IF_ERROR(cuda::QkNormRope(RopeArgs(many, index), main));
      LANCET_CUDA_RETURN_IF_ERROR(cuda::QkNormRope(RopeArgs(gen, index), main));
    }
    if (beside) {
      // A block's keys come from both.
      LANCET_RETURN_IF_ERROR(Join(main, few_stream_, few_done_.get()));
      LANCET_RETURN_IF_ERROR(Join(few_stream_, main, many_done_.get()));
    }
    LANCET_RETURN_IF_ERROR(AttendFew(few, index, fresh));
    LANCET_RETURN_IF_ERROR(AttendMany(index, /*small=*/true, 0, tables_.large_blocks().size()));
    LANCET_RETURN_IF_ERROR(StartFew(few.count));
    LANCET_RETURN_IF_ERROR(FewOut(few));
    LANCET_RETURN_IF_ERROR(SumFew());
    LANCET_RETURN_IF_ERROR(StartMany(pass));
    LANCET_RETURN_IF_ERROR(ManyOut(many));
    LANCET_RETURN_IF_ERROR(ManyOut(gen));
    LANCET_RETURN_IF_ERROR(SumMany(pass, &weights.und.post_norm, &weights.gen.post_norm, &weights.und.gate_up,
                                   &weights.gen.gate_up));
    if (trace_ != nullptr) LANCET_RETURN_IF_ERROR(Trace(pass.rows()));
    LANCET_RETURN_IF_ERROR(StartFew(few.count));
    LANCET_RETURN_IF_ERROR(FewMlp(few));
    LANCET_RETURN_IF_ERROR(SumFew());
    LANCET_RETURN_IF_ERROR(StartMany(pass));
    LANCET_RETURN_IF_ERROR(ManyMlp(many));
    LANCET_RETURN_IF_ERROR(ManyMlp(gen));
    const CudaTrunkWeights::Layer* const next =
        layer + 1 < config_.num_layers ? &weights_.layers[layer + 1] : nullptr;
    LANCET_RETURN_IF_ERROR(next == nullptr ? SumMany(pass, nullptr, nullptr, nullptr, nullptr)
                                           : SumMany(pass, &next->und.input_norm, &next->gen.input_norm,
                                                     &next->und.qkv, &next->gen.qkv));
  }
  if (beside) LANCET_RETURN_IF_ERROR(Join(main, few_stream_, few_done_.get()));
  return absl::OkStatus();
}

}  // namespace lancet
