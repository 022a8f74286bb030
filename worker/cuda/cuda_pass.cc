#include "worker/cuda/cuda_pass.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"

namespace lancet {

void CudaPass::Section::Add(const Positions& from, int64_t index, bool is_wide, const cuda::KvSlot& slot) {
  positions.t.push_back(from.t[index]);
  positions.h.push_back(from.h[index]);
  positions.w.push_back(from.w[index]);
  wide.push_back(is_wide ? 1 : 0);
  slots.push_back(slot);
}

void CudaPass::AddBlock(const Section& section, CudaKvCache* cache, int64_t first, int64_t rows, int64_t keys,
                        bool causal, bool single_rows) {
  Block block;
  block.section = &section;
  block.single_rows = single_rows;
  block.args.base = cache->data();
  block.args.layer_stride = cache->layer_stride();
  block.args.v_offset = cache->v_offset();
  block.args.kv_stride = cache->kv_cols();
  block.args.first_row = static_cast<int32_t>(first);
  block.args.num_rows = static_cast<int32_t>(rows);
  block.args.num_keys = static_cast<int32_t>(keys);
  block.args.causal = causal ? 1 : 0;
  blocks_.push_back(block);
}

void CudaPass::AddAnswer(CudaKvCache* cache, int32_t position) {
  AddBlock(few_, cache, few_.count(), 1, cache->tokens() + 1, /*causal=*/true, /*single_rows=*/true);
  few_.Add({{position}, {position}, {position}}, 0, /*is_wide=*/false, cache->Slot(cache->tokens()));
  growth_.push_back({cache, 1, true});
}

void CudaPass::AddText(CudaKvCache* cache, const Positions& positions, int64_t begin, int64_t count) {
  // Pieces of one block may share a pass: the later sees the earlier.
  int64_t pending = 0;
  for (const Growth& growth : growth_) pending += growth.cache == cache && growth.append ? growth.rows : 0;
  const int64_t past = cache->tokens() + pending;
  AddBlock(many_, cache, many_.count(), count, past + count, /*causal=*/true, /*single_rows=*/false);
  for (int64_t i = 0; i < count; ++i)
    many_.Add(positions, begin + i, /*is_wide=*/false, cache->Slot(past + i));
  growth_.push_back({cache, count, true});
}

void CudaPass::AddVision(CudaKvCache* cache, const Positions& positions) {
  const int64_t count = static_cast<int64_t>(positions.t.size());
  AddBlock(many_, cache, many_.count(), count, cache->tokens() + count, /*causal=*/false,
           /*single_rows=*/false);
  for (int64_t i = 0; i < count; ++i)
    many_.Add(positions, i, /*is_wide=*/false, cache->Slot(cache->tokens() + i));
  growth_.push_back({cache, count, true});
}

void CudaPass::AddLatents(CudaKvCache* cache, const Positions& positions, bool append) {
  const int64_t count = static_cast<int64_t>(positions.t.size());
  const int64_t keys = cache->tokens() + count;
  AddBlock(few_, cache, few_.count(), 2, keys, /*causal=*/false, /*single_rows=*/true);
  AddBlock(gen_, cache, gen_.count(), count - 2, keys, /*causal=*/false, /*single_rows=*/false);
  for (int64_t i = 0; i < count; ++i) {
    const bool marker = i == 0 || i + 1 == count;
    (marker ? few_ : gen_).Add(positions, i, /*is_wide=*/true, cache->Slot(cache->tokens() + i));
  }
  growth_.push_back({cache, count, append});
}

absl::Status CudaPass::Check() const {
  for (size_t i = 0; i < growth_.size(); ++i) {
    int64_t wanted = growth_[i].cache->tokens();
    for (size_t j = 0; j <= i; ++j) {
      if (growth_[j].cache == growth_[i].cache) wanted += growth_[j].rows;
    }
    if (wanted > growth_[i].cache->capacity()) {
      return absl::InvalidArgumentError(
          absl::StrCat("a cache of ", growth_[i].cache->capacity(), " tokens is too small for ", wanted));
    }
  }
  return absl::OkStatus();
}

void CudaPass::AdvanceCaches() const {
  for (const Growth& growth : growth_) {
    if (growth.append) growth.cache->Advance(growth.rows);
  }
}

CudaPassTables::Layout CudaPassTables::LayOut(int64_t rows, int64_t blocks, int64_t tiles,
                                              int64_t single_rows, int64_t ids, int64_t scalars) {
  Layout layout;
  const auto take = [&](int64_t count, size_t size) {
    const int64_t at = layout.bytes;
    layout.bytes += (count * static_cast<int64_t>(size) + 15) / 16 * 16;
    return at;
  };
  layout.positions = take(3 * rows, sizeof(int32_t));
  layout.wide = take(rows, sizeof(uint8_t));
  layout.slots = take(rows, sizeof(cuda::KvSlot));
  layout.blocks = take(blocks, sizeof(cuda::AttentionBlock));
  layout.tiles = take(tiles, sizeof(cuda::AttentionTile));
  layout.single_rows = take(single_rows, sizeof(cuda::AttentionRow));
  layout.ids = take(ids, sizeof(int32_t));
  layout.scalars = take(scalars, sizeof(cuda::StepScalars));
  return layout;
}

absl::StatusOr<CudaPassTables> CudaPassTables::Create(int64_t max_rows, int64_t max_blocks) {
  CudaPassTables tables;
  tables.max_rows_ = max_rows;
  tables.max_blocks_ = max_blocks;
  const int64_t bytes = LayOut(max_rows, max_blocks, max_blocks + max_rows / cuda::kQueryTile + 1,
                               2 * max_blocks, max_rows, max_blocks)
                            .bytes;
  LANCET_ASSIGN_OR_RETURN(tables.device_, DeviceArray<uint8_t>::Create(bytes));
  for (int i = 0; i < kPassesInFlight; ++i) {
    Staging& staging = tables.staging_.emplace_back();
    LANCET_ASSIGN_OR_RETURN(staging.bytes, HostArray<uint8_t>::Create(bytes));
    LANCET_CUDA_RETURN_IF_ERROR(cudaEventCreateWithFlags(staging.copied.receive(), cudaEventDisableTiming));
  }
  return tables;
}

void CudaPassTables::List(const CudaPass& pass) {
  blocks_.clear();
  tiles_.clear();
  single_rows_.clear();
  large_blocks_.clear();
  std::vector<cuda::AttentionTile> large_tiles;
  for (const CudaPass::Block& block : pass.blocks_) {
    const int32_t index = static_cast<int32_t>(blocks_.size());
    cuda::AttentionBlock args = block.args;
    if (block.section == &pass.many_) args.first_row += static_cast<int32_t>(pass.few_rows());
    if (block.section == &pass.gen_) args.first_row += static_cast<int32_t>(pass.und_rows());
    blocks_.push_back(args);
    if (block.single_rows) {
      for (int32_t i = 0; i < args.num_rows; ++i) single_rows_.push_back({index, i});
      continue;
    }
    const bool large = block.section == &pass.gen_ && args.num_rows >= kLargeBlockRows;
    if (large) large_blocks_.push_back(args);
    for (int32_t first = 0; first < args.num_rows; first += cuda::kQueryTile) {
      (large ? large_tiles : tiles_).push_back({index, first});
    }
  }
  only_answers_ = std::all_of(blocks_.begin(), blocks_.end(),
                              [](const cuda::AttentionBlock& block) {
                                return block.num_rows == 1 && block.causal != 0;
                              }) &&
                  single_rows_.size() == blocks_.size();
  num_small_tiles_ = static_cast<int>(tiles_.size());
  tiles_.insert(tiles_.end(), large_tiles.begin(), large_tiles.end());
}

absl::Status CudaPassTables::Upload(const CudaPass& pass, const CudaPassInputs& inputs,
                                    absl::Duration timeout, const CudaContext& ctx) {
  const cudaStream_t stream = ctx.stream();
  const int64_t num_ids = static_cast<int64_t>(inputs.ids.size());
  const int64_t num_scalars = static_cast<int64_t>(inputs.scalars.size());
  if (pass.rows() > max_rows_ || static_cast<int64_t>(pass.blocks_.size()) > max_blocks_ ||
      num_ids > max_rows_ || num_scalars > max_blocks_) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "a pass of ", pass.rows(), " rows in ", pass.blocks_.size(), " blocks with ", num_ids, " ids and ",
        num_scalars, " pictures; there is room for ", max_rows_, " in ", max_blocks_));
  }
  List(pass);
  rows_ = pass.rows();
  layout_ = LayOut(rows_, static_cast<int64_t>(blocks_.size()), static_cast<int64_t>(tiles_.size()),
                   static_cast<int64_t>(single_rows_.size()), num_ids, num_scalars);
  Staging& staging = staging_[next_staging_];
  next_staging_ = (next_staging_ + 1) % staging_.size();
  LANCET_RETURN_IF_ERROR(ctx.WaitFor(staging.copied.get(), timeout));
  uint8_t* const host = staging.bytes.data();
  const auto put = [&](int64_t offset, const auto& values) {
    if (!values.empty()) std::memcpy(host + offset, values.data(), values.size() * sizeof(values[0]));
    return offset + static_cast<int64_t>(values.size() * sizeof(values[0]));
  };
  const CudaPass::Section* const sections[] = {&pass.few_, &pass.many_, &pass.gen_};
  int64_t at = layout_.positions;
  for (const auto axis : {&Positions::t, &Positions::h, &Positions::w}) {
    for (const CudaPass::Section* section : sections) at = put(at, section->positions.*axis);
  }
  at = layout_.wide;
  for (const CudaPass::Section* section : sections) at = put(at, section->wide);
  at = layout_.slots;
  for (const CudaPass::Section* section : sections) at = put(at, section->slots);
  put(layout_.blocks, blocks_);
  put(layout_.tiles, tiles_);
  put(layout_.single_rows, single_rows_);
  put(layout_.ids, inputs.ids);
  put(layout_.scalars, inputs.scalars);
  LANCET_CUDA_RETURN_IF_ERROR(cudaMemcpyAsync(device_.data(), host, static_cast<size_t>(layout_.bytes),
                                              cudaMemcpyHostToDevice, stream));
  return CudaStatus(cudaEventRecord(staging.copied.get(), stream), "cudaEventRecord");
}

void CudaPassTables::AppendShape(std::vector<int64_t>& key) const {
  for (const int64_t number :
       {rows_, static_cast<int64_t>(blocks_.size()), static_cast<int64_t>(tiles_.size()),
        int64_t{num_small_tiles_}, static_cast<int64_t>(single_rows_.size()), layout_.bytes,
        static_cast<int64_t>(only_answers_)}) {
    key.push_back(number);
  }
  // Kernels of libraries get these by value; all others read them from the tables.
  for (const cuda::AttentionBlock& block : large_blocks_) {
    for (const int64_t number :
         {static_cast<int64_t>(reinterpret_cast<intptr_t>(block.base)), block.layer_stride, block.v_offset,
          block.kv_stride, int64_t{block.first_row}, int64_t{block.num_rows}, int64_t{block.num_keys}}) {
      key.push_back(number);
    }
  }
}

}  // namespace lancet
