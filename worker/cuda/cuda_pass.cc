#include "worker/cuda/cuda_pass.h"

#include <algorithm>

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

absl::StatusOr<CudaPassTables> CudaPassTables::Create(int64_t max_rows, int64_t max_blocks) {
  CudaPassTables tables;
  tables.max_rows_ = max_rows;
  tables.max_blocks_ = max_blocks;
  LANCET_ASSIGN_OR_RETURN(tables.positions_, DeviceArray<int32_t>::Create(3 * max_rows));
  LANCET_ASSIGN_OR_RETURN(tables.wide_, DeviceArray<uint8_t>::Create(max_rows));
  LANCET_ASSIGN_OR_RETURN(tables.slots_, DeviceArray<cuda::KvSlot>::Create(max_rows));
  LANCET_ASSIGN_OR_RETURN(tables.blocks_, DeviceArray<cuda::AttentionBlock>::Create(max_blocks));
  LANCET_ASSIGN_OR_RETURN(
      tables.tiles_, DeviceArray<cuda::AttentionTile>::Create(max_blocks + max_rows / cuda::kQueryTile + 1));
  LANCET_ASSIGN_OR_RETURN(tables.single_rows_, DeviceArray<cuda::AttentionRow>::Create(2 * max_blocks));
  tables.host_positions_.resize(3 * max_rows);
  return tables;
}

absl::Status CudaPassTables::Upload(const CudaPass& pass, cudaStream_t stream) {
  if (pass.rows() > max_rows_ || static_cast<int64_t>(pass.blocks_.size()) > max_blocks_) {
    return absl::ResourceExhaustedError(absl::StrCat("a pass of ", pass.rows(), " rows in ",
                                                     pass.blocks_.size(), " blocks; there is room for ",
                                                     max_rows_, " in ", max_blocks_));
  }
  host_wide_.clear();
  host_slots_.clear();
  host_blocks_.clear();
  host_tiles_.clear();
  host_single_rows_.clear();
  large_blocks_.clear();
  max_keys_ = 0;
  std::vector<cuda::AttentionTile> large_tiles;
  int64_t row = 0;
  for (const CudaPass::Section* section : {&pass.few_, &pass.many_, &pass.gen_}) {
    std::copy(section->positions.t.begin(), section->positions.t.end(), host_positions_.begin() + row);
    std::copy(section->positions.h.begin(), section->positions.h.end(),
              host_positions_.begin() + max_rows_ + row);
    std::copy(section->positions.w.begin(), section->positions.w.end(),
              host_positions_.begin() + 2 * max_rows_ + row);
    row += section->count();
    host_wide_.insert(host_wide_.end(), section->wide.begin(), section->wide.end());
    host_slots_.insert(host_slots_.end(), section->slots.begin(), section->slots.end());
  }
  for (const CudaPass::Block& block : pass.blocks_) {
    const int32_t index = static_cast<int32_t>(host_blocks_.size());
    cuda::AttentionBlock args = block.args;
    if (block.section == &pass.many_) args.first_row += static_cast<int32_t>(pass.few_rows());
    if (block.section == &pass.gen_) args.first_row += static_cast<int32_t>(pass.und_rows());
    host_blocks_.push_back(args);
    if (block.single_rows) {
      for (int32_t i = 0; i < args.num_rows; ++i) host_single_rows_.push_back({index, i});
      max_keys_ = std::max(max_keys_, args.num_keys);
      continue;
    }
    const bool large = block.section == &pass.gen_ && args.num_rows >= kLargeBlockRows;
    if (large) large_blocks_.push_back(args);
    for (int32_t first = 0; first < args.num_rows; first += cuda::kQueryTile) {
      (large ? large_tiles : host_tiles_).push_back({index, first});
    }
  }
  only_answers_ = std::all_of(host_blocks_.begin(), host_blocks_.end(),
                              [](const cuda::AttentionBlock& block) {
                                return block.num_rows == 1 && block.causal != 0;
                              }) &&
                  host_single_rows_.size() == host_blocks_.size();
  num_small_tiles_ = static_cast<int>(host_tiles_.size());
  host_tiles_.insert(host_tiles_.end(), large_tiles.begin(), large_tiles.end());
  LANCET_RETURN_IF_ERROR(positions_.CopyFrom(host_positions_, stream));
  LANCET_RETURN_IF_ERROR(wide_.CopyFrom(host_wide_, stream));
  LANCET_RETURN_IF_ERROR(slots_.CopyFrom(host_slots_, stream));
  LANCET_RETURN_IF_ERROR(blocks_.CopyFrom(host_blocks_, stream));
  LANCET_RETURN_IF_ERROR(tiles_.CopyFrom(host_tiles_, stream));
  return single_rows_.CopyFrom(host_single_rows_, stream);
}

}  // namespace lancet
