// Attention kernels against the scalar reference: blocks of rows, single rows, and cuDNN's for pictures.
#include "kernels/cuda/cudnn_attention.h"
#include "kernels/cuda/flash_attention.h"
#include "kernels/cuda/split_attention.h"
#include "kernels/reference/trunk_ref.h"
#include "tests/kernels/cuda/cuda_testing.h"

namespace lancet {
namespace {

// One sequence: a cache of one layer, and the block that comes last in it.
struct Sequence {
  Sequence(int64_t past_tokens, int64_t block_rows, bool is_causal)
      : past(past_tokens), rows(block_rows), causal(is_causal) {}

  int64_t past = 0;
  int64_t rows = 0;
  bool causal = false;
  std::vector<bf16> keys;  // [past + rows, kv_cols]
  std::vector<bf16> values;
  std::vector<int32_t> numbers;  // rows of q; empty: contiguous from first_row
  int32_t first_row = 0;
};

class CudaAttentionTest : public CudaTest {
 protected:
  void Prepare(int heads, int kv_heads, int head_dim, std::vector<Sequence> sequences, int64_t pass_rows) {
    heads_ = heads;
    kv_heads_ = kv_heads;
    head_dim_ = head_dim;
    pass_rows_ = pass_rows;
    sequences_ = std::move(sequences);
    const int64_t kv_cols = int64_t{kv_heads} * head_dim;
    q_ = RandomMatrix(pass_rows, int64_t{heads} * head_dim, 8, 77, 2.0f);
    device_q_ = ToDevice(q_.data);
    uint64_t seed = 100;
    for (Sequence& s : sequences_) {
      const int64_t count = (s.past + s.rows) * kv_cols;
      s.keys = RandomVector(count, seed++, -2.0f, 2.0f);
      s.values = RandomVector(count, seed++, -1.0f, 1.0f);
      std::vector<bf16> cache = s.keys;
      cache.insert(cache.end(), s.values.begin(), s.values.end());
      caches_.push_back(ToDevice(cache));
      cuda::AttentionBlock block;
      block.base = caches_.back().data();
      block.v_offset = count;
      block.kv_stride = kv_cols;
      block.first_row = s.first_row;
      block.num_rows = static_cast<int32_t>(s.rows);
      block.num_keys = static_cast<int32_t>(s.past + s.rows);
      block.causal = s.causal ? 1 : 0;
      if (!s.numbers.empty()) {
        numbers_.push_back(ToDevice(s.numbers));
        block.rows = numbers_.back().data();
      }
      blocks_.push_back(block);
    }
    device_blocks_ = ToDevice(blocks_);
  }

  // Of one row of a sequence, all heads.
  std::vector<double> Expected(const Sequence& s, int64_t row) const {
    std::vector<double> out;
    const int64_t kv_cols = int64_t{kv_heads_} * head_dim_;
    const int64_t number = s.numbers.empty() ? s.first_row + row : s.numbers[row];
    const int64_t visible = s.causal ? s.past + row + 1 : s.past + s.rows;
    for (int h = 0; h < heads_; ++h) {
      std::vector<absl::Span<const bf16>> keys;
      std::vector<absl::Span<const bf16>> values;
      const int64_t offset = int64_t{h / (heads_ / kv_heads_)} * head_dim_;
      for (int64_t j = 0; j < visible; ++j) {
        keys.push_back(absl::MakeConstSpan(s.keys).subspan(j * kv_cols + offset, head_dim_));
        values.push_back(absl::MakeConstSpan(s.values).subspan(j * kv_cols + offset, head_dim_));
      }
      const std::vector<double> head = reference::AttentionRow(
          absl::MakeConstSpan(q_.view().row(number) + int64_t{h} * head_dim_, head_dim_), keys, values);
      out.insert(out.end(), head.begin(), head.end());
    }
    return out;
  }

  void CheckRow(const std::vector<bf16>& out, const Sequence& s, int64_t row) const {
    const int64_t cols = int64_t{heads_} * head_dim_;
    const int64_t number = s.numbers.empty() ? s.first_row + row : s.numbers[row];
    const std::vector<bf16> got(out.begin() + number * cols, out.begin() + (number + 1) * cols);
    // Probabilities and the result are rounded to bf16.
    EXPECT_LT(RelativeError(got, Expected(s, row)), 5e-3) << "row " << row;
  }

  std::vector<bf16> RunFlash(const std::vector<cuda::AttentionTile>& tiles) {
    const int64_t cols = int64_t{heads_} * head_dim_;
    const auto out = Poisoned<bf16>(pass_rows_ * cols);
    const auto device_tiles = ToDevice(tiles);
    cuda::FlashArgs args;
    args.q = device_q_.data();
    args.q_stride = q_.stride;
    args.out = out.data();
    args.out_stride = cols;
    args.blocks = device_blocks_.data();
    args.tiles = device_tiles.data();
    args.num_tiles = static_cast<int>(tiles.size());
    args.heads = heads_;
    args.group = heads_ / kv_heads_;
    args.head_dim = head_dim_;
    EXPECT_EQ(cuda::FlashAttention(args, stream()), cudaSuccess);
    return ToHost(out);
  }
  std::vector<cuda::AttentionTile> TilesOf(int block) const {
    std::vector<cuda::AttentionTile> tiles;
    for (int32_t first = 0; first < blocks_[block].num_rows; first += cuda::kQueryTile)
      tiles.push_back({block, first});
    return tiles;
  }

  int heads_ = 0, kv_heads_ = 0, head_dim_ = 0;
  int64_t pass_rows_ = 0;
  TestMatrix<bf16> q_{0, 0};
  DeviceArray<bf16> device_q_;
  std::vector<Sequence> sequences_;
  std::vector<cuda::AttentionBlock> blocks_;
  DeviceArray<cuda::AttentionBlock> device_blocks_;
  std::vector<DeviceArray<bf16>> caches_;
  std::vector<DeviceArray<int32_t>> numbers_;
};

TEST_F(CudaAttentionTest, BlocksOfSeveralSequencesInOneLaunch) {
  for (const int head_dim : {64, 80, 128}) {
    SCOPED_TRACE(head_dim);
    blocks_.clear();
    Sequence full(/*past_tokens=*/37, /*block_rows=*/150, /*is_causal=*/false);
    full.first_row = 20;
    Sequence causal(/*past_tokens=*/0, /*block_rows=*/140, /*is_causal=*/true);
    for (int32_t i = 0; i < 140; ++i) causal.numbers.push_back(i < 20 ? 19 - i : 170 + 140 - i);
    Sequence chunk(/*past_tokens=*/130, /*block_rows=*/5, /*is_causal=*/true);
    chunk.first_row = 320;
    Prepare(4, 2, head_dim, {full, causal, chunk}, 330);
    std::vector<cuda::AttentionTile> tiles;
    for (int b = 0; b < 3; ++b) {
      for (const auto& tile : TilesOf(b)) tiles.push_back(tile);
    }
    const std::vector<bf16> out = RunFlash(tiles);
    for (const Sequence& s : sequences_) {
      for (const int64_t row : {int64_t{0}, int64_t{1}, s.rows / 2, s.rows - 2, s.rows - 1})
        CheckRow(out, s, row);
    }
    // Alone in a launch, a block gives the same bits.
    const std::vector<bf16> alone = RunFlash(TilesOf(1));
    const int64_t cols = int64_t{4} * head_dim;
    for (const int32_t number : causal.numbers) {
      ASSERT_TRUE(SameBits(out.data() + number * cols, alone.data() + number * cols, cols))
          << "row " << number;
    }
  }
}

TEST_F(CudaAttentionTest, SingleRowsOverLongAndShortCaches) {
  for (const int head_dim : {64, 128}) {
    SCOPED_TRACE(head_dim);
    blocks_.clear();
    Sequence one(/*past_tokens=*/1000, /*block_rows=*/1, /*is_causal=*/true);
    one.first_row = 3;
    Sequence first(/*past_tokens=*/0, /*block_rows=*/1, /*is_causal=*/true);
    first.first_row = 1;
    Sequence markers(/*past_tokens=*/300, /*block_rows=*/84, /*is_causal=*/false);
    for (int32_t i = 0; i < 84; ++i) markers.numbers.push_back(i == 0 ? 0 : i == 83 ? 2 : 3 + i);
    Prepare(16, 2, head_dim, {one, first, markers}, 100);
    const std::vector<cuda::AttentionRow> rows = {{0, 0}, {1, 0}, {2, 0}, {2, 83}};
    const auto run = [&](const std::vector<cuda::AttentionRow>& which) {
      const int64_t cols = int64_t{16} * head_dim;
      const auto out = Poisoned<bf16>(100 * cols);
      const auto device_rows = ToDevice(which);
      cuda::SplitArgs args;
      args.q = device_q_.data();
      args.q_stride = q_.stride;
      args.out = out.data();
      args.out_stride = cols;
      args.blocks = device_blocks_.data();
      args.rows = device_rows.data();
      args.num_rows = static_cast<int>(which.size());
      args.kv_heads = 2;
      args.group = 8;
      args.head_dim = head_dim;
      EXPECT_EQ(cuda::SplitAttention(args, stream()), cudaSuccess);
      return ToHost(out);
    };
    const std::vector<bf16> out = run(rows);
    CheckRow(out, sequences_[0], 0);
    CheckRow(out, sequences_[1], 0);
    CheckRow(out, sequences_[2], 0);
    CheckRow(out, sequences_[2], 83);
    const std::vector<bf16> alone = run({{0, 0}});
    const int64_t cols = int64_t{16} * head_dim;
    EXPECT_TRUE(SameBits(out.data() + 3 * cols, alone.data() + 3 * cols, cols));
  }
}

// Rotation on the way, into the cache and into the result, against the kernel that does it first.
TEST_F(CudaAttentionTest, FreshRowsEqualRotationBeforehand) {
  constexpr int64_t kCols = 20 * 128;
  constexpr int64_t kRows = 3;
  const int64_t pasts[kRows] = {0, 130, 1700};
  const TestMatrix<bf16> qkv = RandomMatrix(kRows, kCols, 0, 5, 2.0f);
  const auto q_norm = ToDevice(RandomVector(128, 6, 0.5f, 1.5f));
  const auto k_norm = ToDevice(RandomVector(128, 7, 0.5f, 1.5f));
  const auto cos = ToDevice(RandomVector(kRows * 64, 8));
  const auto sin = ToDevice(RandomVector(kRows * 64, 9));
  const auto wide = ToDevice(std::vector<uint8_t>{0, 1, 0});
  std::vector<bf16> results[2];
  std::vector<bf16> caches[2];
  for (const bool fresh : {false, true}) {
    const int64_t capacity = 1701;
    const int64_t sequence = 2 * capacity * 256;
    const auto cache = ToDevice(RandomVector(kRows * sequence, 10));
    const auto rows = ToDevice(qkv.data);
    std::vector<cuda::AttentionBlock> blocks(kRows);
    std::vector<cuda::AttentionRow> singles;
    std::vector<cuda::KvSlot> slots;
    for (int32_t i = 0; i < kRows; ++i) {
      blocks[i].base = cache.data() + i * sequence;
      blocks[i].v_offset = capacity * 256;
      blocks[i].kv_stride = 256;
      blocks[i].first_row = i;
      blocks[i].num_rows = 1;
      blocks[i].num_keys = static_cast<int32_t>(pasts[i] + 1);
      blocks[i].causal = 1;
      singles.push_back({i, 0});
      slots.push_back({cache.data() + i * sequence + pasts[i] * 256, 0, capacity * 256});
    }
    const auto device_blocks = ToDevice(blocks);
    const auto device_singles = ToDevice(singles);
    const auto device_slots = ToDevice(slots);
    cuda::SplitArgs args;
    args.rope.qkv = rows.data();
    args.rope.stride = kCols;
    args.rope.rows = kRows;
    args.rope.heads = 16;
    args.rope.kv_heads = 2;
    args.rope.head_dim = 128;
    args.rope.q_norm = q_norm.data();
    args.rope.k_norm = k_norm.data();
    args.rope.eps = 1e-6f;
    args.rope.cos = cos.data();
    args.rope.sin = sin.data();
    args.rope.wide = wide.data();
    args.rope.slots = device_slots.data();
    args.fresh = fresh;
    if (!fresh) {
      ASSERT_EQ(cuda::QkNormRope(args.rope, stream()), cudaSuccess);
    }
    const auto out = Poisoned<bf16>(kRows * 2048);
    args.q = rows.data();
    args.q_stride = kCols;
    args.out = out.data();
    args.out_stride = 2048;
    args.blocks = device_blocks.data();
    args.rows = device_singles.data();
    args.num_rows = kRows;
    args.kv_heads = 2;
    args.group = 8;
    args.head_dim = 128;
    ASSERT_EQ(cuda::SplitAttention(args, stream()), cudaSuccess);
    results[fresh ? 1 : 0] = ToHost(out);
    caches[fresh ? 1 : 0] = ToHost(cache);
  }
  EXPECT_TRUE(results[0] == results[1]);
  EXPECT_TRUE(caches[0] == caches[1]);
}

TEST_F(CudaAttentionTest, CudnnAgreesOnPictures) {
  Sequence picture(/*past_tokens=*/70, /*block_rows=*/258, /*is_causal=*/false);
  Prepare(16, 2, 128, {picture}, 258);
  CudnnAttention attention(ctx_->cudnn());
  const auto out = Poisoned<bf16>(258 * 2048);
  PictureAttentionArgs args;
  args.q = device_q_.data();
  args.q_stride = q_.stride;
  args.k = blocks_[0].base;
  args.v = blocks_[0].base + blocks_[0].v_offset;
  args.kv_stride = 256;
  args.out = out.data();
  args.out_stride = 2048;
  args.rows = 258;
  args.keys = 328;
  args.heads = 16;
  args.kv_heads = 2;
  args.head_dim = 128;
  const absl::Status status = attention.Run(args);
  if (!status.ok()) GTEST_SKIP() << status;
  const std::vector<bf16> got = ToHost(out);
  for (const int64_t row : {0, 1, 100, 256, 257}) CheckRow(got, sequences_[0], row);
}

}  // namespace
}  // namespace lancet
