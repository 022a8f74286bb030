// One packed pass of the trunk on a device: which rows it has, which products they go through, what they
// attend to.
//
// Rows lie in three sections, because a row must go through the same arithmetic whoever else is in the pass:
//   few   the und rows that come one or two at a time: tokens of answers, the markers around latents
//   many  the other und rows: text, pictures for the vision tower
//   gen   latents
// Few rows are multiplied by a kernel whose sums do not depend on how many they are; the others by products
// whose sums do not, either.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/request_plan.h"
#include "kernels/cuda/cuda_context.h"
#include "kernels/cuda/device_array.h"
#include "kernels/cuda/flash_attention.h"
#include "kernels/cuda/split_attention.h"
#include "worker/cuda/cuda_kv_cache.h"

namespace lancet {

// Blocks of latents from here on have an attention kernel of their own: below, it gains nothing. By the
// block's own size alone, so that a picture always takes the same way.
inline constexpr int32_t kLargeBlockRows = 256;

class CudaPass {
 public:
  CudaPass() = default;
  CudaPass(const CudaPass&) = delete;  // blocks point at sections
  CudaPass& operator=(const CudaPass&) = delete;

  // One token of an answer, cached.
  void AddAnswer(CudaKvCache* cache, int32_t position);
  // Rows [begin, begin + count) of a run of text, causal, cached.
  void AddText(CudaKvCache* cache, const Positions& positions, int64_t begin, int64_t count);
  // A start marker, features and an end marker, which all see each other, cached.
  void AddVision(CudaKvCache* cache, const Positions& positions);
  // A start marker, latents and an end marker, which all see each other; cached if `append`.
  void AddLatents(CudaKvCache* cache, const Positions& positions, bool append);

  int64_t few_rows() const { return few_.count(); }
  int64_t many_rows() const { return many_.count(); }
  int64_t gen_rows() const { return gen_.count(); }
  int64_t und_rows() const { return few_rows() + many_rows(); }
  int64_t rows() const { return und_rows() + gen_rows(); }

  // InvalidArgument unless every cache has room for its block.
  absl::Status Check() const;
  // The appended blocks are cached from now on.
  void AdvanceCaches() const;

 private:
  friend class CudaPassTables;
  struct Section {
    Positions positions;
    std::vector<uint8_t> wide;
    std::vector<cuda::KvSlot> slots;
    int64_t count() const { return static_cast<int64_t>(wide.size()); }
    void Add(const Positions& from, int64_t index, bool is_wide, const cuda::KvSlot& slot);
  };
  struct Growth {
    CudaKvCache* cache;
    int64_t rows;
    bool append;
  };
  // Rows of one sequence in one section; first_row counts within the section until the tables are made.
  struct Block {
    const Section* section;
    cuda::AttentionBlock args;
    bool single_rows;  // split attention; else tiles
  };
  void AddBlock(const Section& section, CudaKvCache* cache, int64_t first, int64_t rows, int64_t keys,
                bool causal, bool single_rows);

  Section few_, many_, gen_;
  std::vector<Block> blocks_;
  std::vector<Growth> growth_;
};

// A pass as the kernels read it. The memory is taken once; addresses do not change from pass to pass.
class CudaPassTables {
 public:
  static absl::StatusOr<CudaPassTables> Create(int64_t max_rows, int64_t max_blocks);

  // Enqueues copies; the pass may change afterwards, but no other may be uploaded before the stream has
  // passed this one. ResourceExhausted beyond the sizes given to Create.
  absl::Status Upload(const CudaPass& pass, cudaStream_t stream);

  const int32_t* t() const { return positions_.data(); }
  const int32_t* h() const { return positions_.data() + max_rows_; }
  const int32_t* w() const { return positions_.data() + 2 * max_rows_; }
  const uint8_t* wide() const { return wide_.data(); }
  const cuda::KvSlot* slots() const { return slots_.data(); }
  const cuda::AttentionBlock* blocks() const { return blocks_.data(); }
  const cuda::AttentionTile* tiles() const { return tiles_.data(); }
  const cuda::AttentionRow* single_rows() const { return single_rows_.data(); }

  // Of the last upload. Large blocks are those of at least kLargeBlockRows latents; their tiles come last.
  int num_tiles() const { return static_cast<int>(host_tiles_.size()); }
  int num_small_tiles() const { return num_small_tiles_; }
  const std::vector<cuda::AttentionBlock>& large_blocks() const { return large_blocks_; }
  int num_single_rows() const { return static_cast<int>(host_single_rows_.size()); }
  int max_keys() const { return max_keys_; }  // of a single row
  // Every row is the only one of its block.
  bool only_answers() const { return only_answers_; }

 private:
  int64_t max_rows_ = 0;
  int64_t max_blocks_ = 0;
  DeviceArray<int32_t> positions_;  // [3, max_rows]
  DeviceArray<uint8_t> wide_;
  DeviceArray<cuda::KvSlot> slots_;
  DeviceArray<cuda::AttentionBlock> blocks_;
  DeviceArray<cuda::AttentionTile> tiles_;
  DeviceArray<cuda::AttentionRow> single_rows_;
  int max_keys_ = 0;
  bool only_answers_ = false;
  int num_small_tiles_ = 0;
  std::vector<cuda::AttentionBlock> large_blocks_;

  std::vector<int32_t> host_positions_;
  std::vector<uint8_t> host_wide_;
  std::vector<cuda::KvSlot> host_slots_;
  std::vector<cuda::AttentionBlock> host_blocks_;
  std::vector<cuda::AttentionTile> host_tiles_;
  std::vector<cuda::AttentionRow> host_single_rows_;
};

}  // namespace lancet
