// The trunk's part in a group of ranks: where partial sums go, and a picture's latents in two halves.
#include <algorithm>

#include "common/status_macros.h"
#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/qk_rope.h"
#include "worker/cuda/cuda_trunk.h"

namespace lancet {
namespace {

// Fewer latents in a half are multiplied too slowly for what is won.
constexpr int64_t kLeastHalf = 1024;

}  // namespace

// --- Sums over the ranks. ---

absl::Status CudaTrunk::Attach(DeviceCollective* group, bool f32_partials) {
  group_ = group;
  f32_partials_ = f32_partials;
  ++group_generation_;
  if (group != nullptr && normed_.size() == 0) {
    LANCET_ASSIGN_OR_RETURN(normed_, DeviceArray<bf16>::Create(max_rows_ * config_.hidden_size));
  }
  return absl::OkStatus();
}

std::array<int64_t, kDeviceLanes> CudaTrunk::lane_bytes(bool f32_partials) const {
  const int64_t few = few_capacity_ * config_.hidden_size * 4;
  const int64_t many = max_rows_ * config_.hidden_size * (f32_partials ? 4 : 2);
  return {few, many, many, many};
}

absl::Status CudaTrunk::StartFew(int64_t rows) {
  few_shared_ = {};
  if (group_ == nullptr || rows == 0) return absl::OkStatus();
  if (group_->can_share()) {
    LANCET_ASSIGN_OR_RETURN(few_shared_, group_->NextShared(few_sum_));
    return absl::OkStatus();
  }
  LANCET_ASSIGN_OR_RETURN(void* const partials, group_->NextPartials(few_sum_));
  few_partials_ = static_cast<float*>(partials);
  return absl::OkStatus();
}

absl::Status CudaTrunk::StartMany(const CudaPass& pass) {
  if (group_ == nullptr || pass.rows() == pass.few_rows()) return absl::OkStatus();
  LANCET_ASSIGN_OR_RETURN(many_partials_, group_->NextPartials(many_sum_));
  first_partial_row_ = pass.few_rows();
  return absl::OkStatus();
}

void CudaTrunk::PutFew(int64_t first, cuda::FewRowsArgs& args) const {
  args.y_stride = config_.hidden_size;
  if (group_ != nullptr) {
    args.output = cuda::FewRowsOutput::kF32;
    args.shared = few_shared_;
    for (int rank = 0; rank < args.shared.ranks; ++rank)
      args.shared.inboxes[rank] += first * config_.hidden_size;
    if (args.shared.ranks == 0) args.y_f32 = few_partials_ + first * config_.hidden_size;
  } else {
    args.output = cuda::FewRowsOutput::kResidual;
    args.y = stream_rows(first);
  }
}

absl::Status CudaTrunk::AddProduct(const CudaLinear& linear, const bf16* x, const Rows& rows) {
  if (group_ == nullptr) {
    return Product(linear, x, rows.count, /*accumulate=*/true, MatmulOutput::kBf16, stream_rows(rows.first));
  }
  const int64_t first = (rows.first - first_partial_row_) * config_.hidden_size;
  if (f32_partials_) {
    return Product(linear, x, rows.count, /*accumulate=*/false, MatmulOutput::kF32,
                   static_cast<float*>(many_partials_) + first);
  }
  return Product(linear, x, rows.count, /*accumulate=*/false, MatmulOutput::kBf16,
                 static_cast<bf16*>(many_partials_) + first);
}

absl::Status CudaTrunk::SumFew() {
  if (group_ == nullptr || few_sum_.rows == 0) return absl::OkStatus();
  return group_->can_share() ? group_->AddShared(few_sum_, stream_rows(), few_stream_)
                             : group_->AddSums(few_sum_, stream_rows(), {}, few_stream_);
}

absl::Status CudaTrunk::SumMany(const CudaPass& pass, const DeviceArray<bf16>* und,
                                const DeviceArray<bf16>* gen, const CudaLinear* next_und,
                                const CudaLinear* next_gen) {
  normed_by_sum_ = false;
  if (group_ == nullptr || many_sum_.rows == 0) return absl::OkStatus();
  cuda::RowNorm norm;
  if (und != nullptr && next_und->dense() != nullptr && next_gen->dense() != nullptr) {
    norm.first = und->data();
    norm.second = gen->data();
    norm.second_begin = pass.many_rows();
    norm.eps = config_.rms_norm_eps;
    norm.y = normed_.data();
    normed_by_sum_ = true;
  }
  return group_->AddSums(many_sum_, stream_rows(pass.few_rows()), norm, ctx_.stream());
}

// --- Latents in halves. ---

std::array<CudaTrunk::Half, 2> CudaTrunk::SplitHalves(const CudaPass& pass) const {
  std::array<Half, 2> halves;
  const std::vector<cuda::AttentionBlock>& blocks = tables_.large_blocks();
  if (group_ == nullptr || !group_->can_fetch() || !choices_.halves || trace_ != nullptr ||
      pass.many_rows() > 0 || tables_.num_small_tiles() > 0) {
    return halves;
  }
  // At the end of a block, as near to the middle as can be.
  const auto end_of = [&](size_t i) { return blocks[i].first_row + int64_t{blocks[i].num_rows}; };
  size_t count = 0;
  while (count + 1 < blocks.size() && 2 * (end_of(count) - pass.und_rows()) <= pass.gen_rows()) ++count;
  if (count == 0) return halves;
  const int64_t middle = end_of(count - 1);
  if (middle - pass.und_rows() < kLeastHalf || pass.rows() - middle < kLeastHalf) return halves;
  halves[0] = {{pass.und_rows(), middle - pass.und_rows()}, 0, count, {}};
  halves[1] = {{middle, pass.rows() - middle}, count, blocks.size() - count, {}};
  for (int i = 0; i < 2; ++i) {
    halves[i].sum = {i == 0 ? DeviceLane::kFirstHalf : DeviceLane::kSecondHalf, f32_partials_,
                     halves[i].rows.count, config_.hidden_size};
  }
  return halves;
}

absl::Status CudaTrunk::StartHalf(const Half& half) {
  LANCET_ASSIGN_OR_RETURN(many_partials_, group_->NextPartials(half.sum));
  first_partial_row_ = half.rows.first;
  return absl::OkStatus();
}

absl::Status CudaTrunk::FetchHalf(const Half& half, int index) {
  LANCET_RETURN_IF_ERROR(Join(fetches_.get(), ctx_.stream(), products_done_[index].get()));
  LANCET_RETURN_IF_ERROR(group_->Fetch(half.sum, fetches_.get()));
  return CudaStatus(cudaEventRecord(fetched_[index].get(), fetches_.get()), "cudaEventRecord");
}

absl::Status CudaTrunk::AddHalf(const Half& half, int index, const DeviceArray<bf16>* weight,
                                const CudaLinear* next) {
  LANCET_CUDA_RETURN_IF_ERROR(cudaStreamWaitEvent(ctx_.stream(), fetched_[index].get(), 0));
  cuda::RowNorm norm;
  normed_by_sum_ = weight != nullptr && next->dense() != nullptr;
  if (normed_by_sum_) {
    norm.first = norm.second = weight->data();
    norm.eps = config_.rms_norm_eps;
    norm.y = normed_.data() + (half.rows.first - few_sum_.rows) * config_.hidden_size;
  }
  return group_->AddFetched(half.sum, stream_rows(half.rows.first), norm, ctx_.stream());
}

absl::Status CudaTrunk::ForwardHalves(const CudaPass& pass, const std::array<Half, 2>& halves) {
  const cudaStream_t main = ctx_.stream();
  const Half& first = halves[0];
  const Half& second = halves[1];
  for (int64_t layer = 0; layer < config_.num_layers; ++layer) {
    const CudaTrunkWeights::Layer& weights = weights_.layers[layer];
    const CudaExpert& gen = weights.gen;
    const Rows few = {0, pass.few_rows(), &weights.und};
    const int index = static_cast<int>(layer);
    LANCET_RETURN_IF_ERROR(FewQkv(few, /*overlaps=*/layer > 0));
    LANCET_CUDA_RETURN_IF_ERROR(cuda::QkNormRope(RopeArgs(few, index), few_stream_));
    for (const Half* half : {&first, &second}) {
      const int i = half == &first ? 0 : 1;
      const Rows rows = RowsOf(*half, gen);
      if (layer > 0) LANCET_RETURN_IF_ERROR(AddHalf(*half, i, &gen.input_norm, &gen.qkv));
      LANCET_RETURN_IF_ERROR(ManyQkv(rows));
      LANCET_CUDA_RETURN_IF_ERROR(cuda::QkNormRope(RopeArgs(rows, index), main));
      if (i == 0) {
        // A block's keys include its markers'.
        LANCET_RETURN_IF_ERROR(Join(main, few_stream_, few_done_.get()));
      } else {
        // Markers see both halves.
        LANCET_RETURN_IF_ERROR(Join(few_stream_, main, many_done_.get()));
        LANCET_RETURN_IF_ERROR(AttendFew(few, index, /*fresh=*/false));
        LANCET_RETURN_IF_ERROR(StartFew(few.count));
        LANCET_RETURN_IF_ERROR(FewOut(few));
        LANCET_RETURN_IF_ERROR(SumFew());
        LANCET_RETURN_IF_ERROR(StartFew(few.count));
        LANCET_RETURN_IF_ERROR(FewMlp(few));
        LANCET_RETURN_IF_ERROR(SumFew());
      }
      LANCET_RETURN_IF_ERROR(AttendMany(index, /*small=*/false, half->first_block, half->num_blocks));
      LANCET_RETURN_IF_ERROR(StartHalf(*half));
      LANCET_RETURN_IF_ERROR(ManyOut(rows));
      LANCET_RETURN_IF_ERROR(FetchHalf(*half, i));
    }
    for (const Half* half : {&first, &second}) {
      const int i = half == &first ? 0 : 1;
      LANCET_RETURN_IF_ERROR(AddHalf(*half, i, &gen.post_norm, &gen.gate_up));
      LANCET_RETURN_IF_ERROR(StartHalf(*half));
      LANCET_RETURN_IF_ERROR(ManyMlp(RowsOf(*half, gen)));
      LANCET_RETURN_IF_ERROR(FetchHalf(*half, i));
    }
  }
  LANCET_RETURN_IF_ERROR(AddHalf(first, 0, nullptr, nullptr));
  return AddHalf(second, 1, nullptr, nullptr);
}

}  // namespace lancet
