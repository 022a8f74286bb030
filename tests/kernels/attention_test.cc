#include "kernels/attention.h"

#include <numeric>

#include "gmock/gmock.h"
#include "kernels/reference/trunk_ref.h"
#include "tests/kernels/kernel_testing.h"

namespace lancet {
namespace {

// A pass of which every second row (in reverse order) belongs to the block.
struct Case {
  Case(int64_t dim, std::vector<int32_t> mapping, int64_t kv, int64_t block, int64_t past_tokens,
       bool is_causal)
      : head_dim(dim),
        kv_head_of(std::move(mapping)),
        q(RandomMatrix(2 * block, kv_head_of.size() * dim, 6, 1, 2.0f)),
        k(RandomMatrix(2 * block, kv * dim, 2, 2, 2.0f)),
        v(RandomMatrix(2 * block, kv * dim, 4, 3)),
        past_k(RandomMatrix(past_tokens, kv * dim, 0, 4, 2.0f)),
        past_v(RandomMatrix(past_tokens, kv * dim, 0, 5)),
        out(2 * block, kv_head_of.size() * dim, 10),
        causal(is_causal) {
    for (int64_t i = 0; i < block; ++i) rows.push_back(static_cast<int32_t>(2 * (block - 1 - i)));
  }

  AttentionArgs Args() const {
    AttentionArgs args;
    args.head_dim = head_dim;
    args.kv_head_of = kv_head_of;
    args.q = q.view();
    args.k = k.view();
    args.v = v.view();
    only_block.rows = rows;
    // In two parts, as after a fork; the first may be empty.
    const int64_t split = past_k.rows / 3;
    past[0] = {past_k.view().Rows(0, split), past_v.view().Rows(0, split)};
    past[1] = {past_k.view().Rows(split, past_k.rows - split),
               past_v.view().Rows(split, past_k.rows - split)};
    only_block.past = past;
    only_block.causal = causal;
    args.blocks = {&only_block, 1};
    return args;
  }

  int64_t head_dim;
  std::vector<int32_t> kv_head_of;
  TestMatrix<bf16> q, k, v, past_k, past_v, out;
  mutable PastTokens past[2];
  mutable AttentionBlock only_block;
  bool causal;
  std::vector<int32_t> rows;
};

void ExpectMatchesReference(Case& c) {
  const int64_t past = c.past_k.rows;
  for (size_t i = 0; i < c.rows.size(); ++i) {
    for (size_t head = 0; head < c.kv_head_of.size(); ++head) {
      const int64_t kv = c.kv_head_of[head] * c.head_dim;
      const size_t dim = static_cast<size_t>(c.head_dim);
      std::vector<absl::Span<const bf16>> keys, values;
      for (int64_t t = 0; t < past; ++t) {
        keys.emplace_back(c.past_k.view().row(t) + kv, dim);
        values.emplace_back(c.past_v.view().row(t) + kv, dim);
      }
      for (size_t t = 0; t < (c.causal ? i + 1 : c.rows.size()); ++t) {
        keys.emplace_back(c.k.view().row(c.rows[t]) + kv, dim);
        values.emplace_back(c.v.view().row(c.rows[t]) + kv, dim);
      }
      const bf16* q = c.q.view().row(c.rows[i]) + head * c.head_dim;
      const std::vector<double> exact = reference::AttentionRow({q, dim}, keys, values);
      const bf16* got = c.out.view().row(c.rows[i]) + head * c.head_dim;
      for (size_t d = 0; d < dim; ++d) {
        // The result's rounding, and that of the probabilities, whose values are below 1.
        ASSERT_NEAR(ToFloat(got[d]), exact[d], HalfUlp(exact[d]) + HalfUlp(1.0))
            << "block row " << i << ", head " << head << ", dimension " << d;
      }
    }
  }
}

class AttentionTest : public testing::TestWithParam<CpuIsa> {};

TEST_P(AttentionTest, MatchesReference) {
  const auto ctx = MakeContext(GetParam());
  for (const int64_t head_dim : {2, 20, 128, 256}) {
    for (const int64_t past : {0, 9, 300}) {
      for (const int64_t block : {1, 5, 40}) {
        for (const bool causal : {false, true}) {
          SCOPED_TRACE(testing::Message() << "head_dim " << head_dim << ", past " << past << ", block "
                                          << block << ", causal " << causal);
          Case c(head_dim, {0, 0, 0, 1, 1}, 2, block, past, causal);
          ASSERT_TRUE(Attention(*ctx, c.Args(), c.out.view()).ok());
          ExpectMatchesReference(c);
          EXPECT_TRUE(c.out.PaddingUntouched());
          // Rows of the pass outside the block stay as they were.
          EXPECT_EQ(c.out.view().row(1)[0].bits, kPaddingBits);
        }
      }
    }
  }
}

TEST_P(AttentionTest, LongCausalBlockMatchesReference) {
  const auto ctx = MakeContext(GetParam(), 2);
  Case c(16, {1, 0}, 2, 600, 40, true);
  ASSERT_TRUE(Attention(*ctx, c.Args(), c.out.view()).ok());
  ExpectMatchesReference(c);
}

TEST_P(AttentionTest, LargeScoresStayFinite) {
  const auto ctx = MakeContext(GetParam());
  Case c(64, {0}, 1, 20, 0, false);
  for (bf16& x : c.q.data) x = ToBf16(ToFloat(x) * 100.0f);
  ASSERT_TRUE(Attention(*ctx, c.Args(), c.out.view()).ok());
  for (const int32_t row : c.rows) {
    for (int64_t d = 0; d < 64; ++d) EXPECT_LE(std::abs(ToFloat(c.out.view().row(row)[d])), 1.01f);
  }
}

TEST_P(AttentionTest, ResultsDoNotDependOnThreads) {
  Case c(128, {0, 0, 1, 1}, 2, 130, 50, true);
  std::vector<bf16> expected;
  for (const int threads : {1, 2, 3}) {
    const auto ctx = MakeContext(GetParam(), threads);
    ASSERT_TRUE(Attention(*ctx, c.Args(), c.out.view()).ok());
    if (threads == 1) expected = c.out.data;
    EXPECT_TRUE(SameBits(c.out.data.data(), expected.data(), static_cast<int64_t>(expected.size())));
  }
}

// A causal row alone, with the rows before it as its past, is the row in its block.
TEST_P(AttentionTest, RowAloneEqualsRowInBlock) {
  const auto ctx = MakeContext(GetParam());
  constexpr int64_t kTokens = 300;
  Case c(128, {0, 0, 1, 1, 1}, 2, kTokens, 0, true);
  c.rows.resize(kTokens);
  std::iota(c.rows.begin(), c.rows.end(), 0);
  ASSERT_TRUE(Attention(*ctx, c.Args(), c.out.view()).ok());
  for (const int32_t row : {0, 1, 15, 16, 100, 255, 256, 299}) {
    TestMatrix<bf16> alone(c.out.rows, c.out.cols, 10);
    AttentionArgs args = c.Args();
    const int32_t rows[] = {row};
    const PastTokens past{c.k.view().Rows(0, row), c.v.view().Rows(0, row)};
    c.only_block.rows = rows;
    c.only_block.past = {&past, 1};
    ASSERT_TRUE(Attention(*ctx, args, alone.view()).ok());
    EXPECT_TRUE(SameBits<bf16>(alone.view().row(row), c.out.view().row(row), c.out.cols)) << "row " << row;
  }
}

// A rank that has only some of the heads computes the same for them.
TEST_P(AttentionTest, HeadsAloneEqualHeadsTogether) {
  const auto ctx = MakeContext(GetParam());
  Case c(32, {0, 0, 1, 1}, 2, 33, 7, false);
  ASSERT_TRUE(Attention(*ctx, c.Args(), c.out.view()).ok());
  AttentionArgs args = c.Args();
  const int32_t mapping[] = {0, 0};
  args.kv_head_of = mapping;
  args.q = c.q.view().Cols(64, 64);
  args.k = c.k.view().Cols(32, 32);
  args.v = c.v.view().Cols(32, 32);
  const PastTokens past{c.past_k.view().Cols(32, 32), c.past_v.view().Cols(32, 32)};
  c.only_block.past = {&past, 1};
  TestMatrix<bf16> half(c.out.rows, 64);
  ASSERT_TRUE(Attention(*ctx, args, half.view()).ok());
  for (const int32_t row : c.rows) {
    EXPECT_TRUE(SameBits<bf16>(half.view().row(row), c.out.view().row(row) + 64, 64));
  }
}

// Blocks of several sequences in one call, some causal, some of one row, of different length.
TEST_P(AttentionTest, BlocksTogetherEqualBlocksAlone) {
  Case c(64, {0, 0, 0, 0, 1, 1, 1, 1}, 2, 100, 90, false);
  const auto row_range = [&](size_t begin, size_t count) {
    return absl::MakeConstSpan(c.rows).subspan(begin, count);
  };
  const PastTokens long_past{c.past_k.view(), c.past_v.view()};
  const PastTokens short_past{c.past_k.view().Rows(10, 17), c.past_v.view().Rows(10, 17)};
  const AttentionBlock blocks[] = {{row_range(0, 1), {&short_past, 1}, true},
                                   {row_range(1, 60), {&long_past, 1}, false},
                                   {row_range(61, 2), {}, true},
                                   {row_range(63, 1), {&long_past, 1}, true},
                                   {row_range(64, 36), {&short_past, 1}, true}};
  for (const int threads : {1, 3}) {
    const auto ctx = MakeContext(GetParam(), threads);
    AttentionArgs args = c.Args();
    TestMatrix<bf16> alone(c.out.rows, c.out.cols, 10);
    for (const AttentionBlock& block : blocks) {
      args.blocks = {&block, 1};
      ASSERT_TRUE(Attention(*ctx, args, alone.view()).ok());
    }
    args.blocks = blocks;
    ASSERT_TRUE(Attention(*ctx, args, c.out.view()).ok());
    EXPECT_TRUE(SameBits(c.out.data.data(), alone.data.data(), static_cast<int64_t>(alone.data.size())));
  }
}

TEST_P(AttentionTest, NothingToDo) {
  const auto ctx = MakeContext(GetParam());
  Case no_rows(16, {0}, 1, 0, 4, false);
  EXPECT_TRUE(Attention(*ctx, no_rows.Args(), no_rows.out.view()).ok());
  Case no_heads(16, {}, 1, 4, 4, false);
  EXPECT_TRUE(Attention(*ctx, no_heads.Args(), no_heads.out.view()).ok());
}

TEST_P(AttentionTest, NamesWhatDisagrees) {
  const auto ctx = MakeContext(GetParam());
  Case c(16, {0, 1}, 2, 4, 0, false);
  AttentionArgs args = c.Args();
  const int32_t mapping[] = {0, 2};
  args.kv_head_of = mapping;
  EXPECT_THAT(std::string(Attention(*ctx, args, c.out.view()).message()),
              testing::HasSubstr("kv_head_of[1] is 2; there are 2"));
  args = c.Args();
  const int32_t rows[] = {0, 8};
  c.only_block.rows = rows;
  EXPECT_THAT(std::string(Attention(*ctx, args, c.out.view()).message()),
              testing::HasSubstr("rows[1] is 8; the pass has 8 rows"));
  args = c.Args();
  args.head_dim = 258;
  EXPECT_EQ(Attention(*ctx, args, c.out.view()).code(), absl::StatusCode::kInvalidArgument);
  args = c.Args();
  args.v = args.v.Cols(0, 16);
  EXPECT_EQ(Attention(*ctx, args, c.out.view()).code(), absl::StatusCode::kInvalidArgument);
}

INSTANTIATE_TEST_SUITE_P(Isa, AttentionTest, testing::ValuesIn(AvailableIsas()), IsaTestName);

}  // namespace
}  // namespace lancet
