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
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "common/request_plan.h"
#include "kernels/cuda/cuda_context.h"
#include "kernels/cuda/cuda_handle.h"
#include "kernels/cuda/device_array.h"
#include "kernels/cuda/flash_attention.h"
#include "kernels/cuda/host_array.h"
#include "kernels/cuda/sampler_ops.h"
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

// What else a pass reads, for the caller's kernels.
struct CudaPassInputs {
  absl::Span<const int32_t> ids;                // token ids of the und rows
  absl::Span<const cuda::StepScalars> scalars;  // of the pictures in the pass
};

// A pass as the kernels read it, in one piece of memory that is taken once and laid out by the pass's counts:
// passes of equal counts lie at equal addresses.
class CudaPassTables {
 public:
  static absl::StatusOr<CudaPassTables> Create(int64_t max_rows, int64_t max_blocks);

  // Enqueues one copy; the pass may change afterwards. Waits, until `timeout`, while kPassesInFlight uploads
  // before this one are on their way. ResourceExhausted beyond the sizes given to Create, DeadlineExceeded.
  absl::Status Upload(const CudaPass& pass, const CudaPassInputs& inputs, absl::Duration timeout,
                      const CudaContext& ctx);

  const int32_t* t() const { return At<int32_t>(layout_.positions); }
  const int32_t* h() const { return t() + rows_; }
  const int32_t* w() const { return t() + 2 * rows_; }
  const uint8_t* wide() const { return At<uint8_t>(layout_.wide); }
  const cuda::KvSlot* slots() const { return At<cuda::KvSlot>(layout_.slots); }
  const cuda::AttentionBlock* blocks() const { return At<cuda::AttentionBlock>(layout_.blocks); }
  const cuda::AttentionTile* tiles() const { return At<cuda::AttentionTile>(layout_.tiles); }
  const cuda::AttentionRow* single_rows() const { return At<cuda::AttentionRow>(layout_.single_rows); }
  const int32_t* ids() const { return At<int32_t>(layout_.ids); }
  const cuda::StepScalars* scalars() const { return At<cuda::StepScalars>(layout_.scalars); }

  // Of the last upload. Large blocks are those of at least kLargeBlockRows latents; their tiles come last.
  int num_tiles() const { return static_cast<int>(tiles_.size()); }
  int num_small_tiles() const { return num_small_tiles_; }
  const std::vector<cuda::AttentionBlock>& large_blocks() const { return large_blocks_; }
  int num_single_rows() const { return static_cast<int>(single_rows_.size()); }
  // Every row is the only one of its block.
  bool only_answers() const { return only_answers_; }

  // Appends what decides the launches of a pass beside the addresses of its caller's memory: equal shapes,
  // equal launches.
  void AppendShape(std::vector<int64_t>& key) const;

 private:
  static constexpr int kPassesInFlight = 3;
  // Byte offsets.
  struct Layout {
    int64_t positions = 0, wide = 0, slots = 0, blocks = 0, tiles = 0, single_rows = 0, ids = 0, scalars = 0;
    int64_t bytes = 0;
  };
  struct Staging {
    HostArray<uint8_t> bytes;
    CudaHandle<cudaEvent_t, cudaEventDestroy> copied;
  };
  template <typename T>
  const T* At(int64_t offset) const {
    return reinterpret_cast<const T*>(device_.data() + offset);
  }
  void List(const CudaPass& pass);
  static Layout LayOut(int64_t rows, int64_t blocks, int64_t tiles, int64_t single_rows, int64_t ids,
                       int64_t scalars);

  int64_t max_rows_ = 0;
  int64_t max_blocks_ = 0;
  DeviceArray<uint8_t> device_;
  std::vector<Staging> staging_;
  size_t next_staging_ = 0;
  Layout layout_;
  int64_t rows_ = 0;
  bool only_answers_ = false;
  int num_small_tiles_ = 0;
  std::vector<cuda::AttentionBlock> blocks_;
  std::vector<cuda::AttentionTile> tiles_;
  std::vector<cuda::AttentionRow> single_rows_;
  std::vector<cuda::AttentionBlock> large_blocks_;
};

}  // namespace lancet
