// layer_und, layer_und_full, layer_gen: layer 0 on a block of rows after some cached ones.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/status_macros.h"
#include "kernels/kernel_context.h"
#include "tools/golden/golden_runs.h"
#include "worker/model/pass.h"
#include "worker/model/transformer.h"

namespace lancet {
namespace {

// The inputs of a case.
struct LayerInput {
  TensorView x;         // [rows, hidden] bf16
  TensorView position;  // [3, rows] i32
  TensorView past_k;    // [past, kv heads, head_dim] bf16
  TensorView past_v;
  TensorView gen;  // [rows] bool
  bool causal = false;
};

absl::StatusOr<LayerInput> ReadInput(const StateDict& dict, const ModelConfig& config, bool causal) {
  LayerInput in;
  in.causal = causal;
  LANCET_ASSIGN_OR_RETURN(in.x, dict.Get("x"));
  LANCET_ASSIGN_OR_RETURN(in.position, dict.Get("position"));
  LANCET_ASSIGN_OR_RETURN(in.past_k, dict.Get("past_k"));
  LANCET_ASSIGN_OR_RETURN(in.past_v, dict.Get("past_v"));
  LANCET_ASSIGN_OR_RETURN(in.gen, dict.Get("gen"));
  const int64_t rows = in.gen.num_elements();
  if (in.x.shape != Shape{rows, config.hidden_size} || in.position.shape != Shape{3, rows} ||
      in.past_k.shape != in.past_v.shape || in.past_k.shape.size() != 3 ||
      in.past_k.shape[1] != config.num_kv_heads || in.past_k.shape[2] != config.head_dim) {
    return absl::InvalidArgumentError("inputs do not have the checkpoint's sizes");
  }
  return in;
}

// Results of all ranks, put together: full width, rows in the order of the case.
struct LayerOutput {
  std::vector<double> q, k, v, attn, mid, out;
};

// Copies columns [begin, begin + cols) of every row.
void Place(const std::vector<bf16>& part, const std::vector<int32_t>& rows, int64_t cols, int64_t begin,
           int64_t full_cols, std::vector<double>& full) {
  for (size_t i = 0; i < rows.size(); ++i) {
    for (int64_t c = 0; c < cols; ++c) full[i * full_cols + begin + c] = ToFloat(part[rows[i] * cols + c]);
  }
}

absl::Status RunRank(const GoldenContext& context, const LayerInput& in, int rank, Collective& collective,
                     LayerOutput& out) {
  const ModelConfig& config = context.checkpoint.config();
  LANCET_ASSIGN_OR_RETURN(const auto ctx, KernelContext::CreateCpu({}));
  ctx->BindCallingThread();
  LANCET_ASSIGN_OR_RETURN(const ShardPlan plan, MakeShardPlan(config, rank, context.world_size));
  LANCET_ASSIGN_OR_RETURN(TrunkWeights weights,
                          TrunkWeights::Load(*ctx, context.checkpoint.trunk(), config, plan,
                                             /*with_head=*/false, context.policy));
  const int64_t rows = in.gen.num_elements();
  Transformer transformer(*ctx, config, plan, std::move(weights), rows);

  KvCache cache(1, in.past_k.shape[0], plan.kv_cols());
  const int64_t past_cols = config.num_kv_heads * config.head_dim;
  for (int64_t r = 0; r < in.past_k.shape[0]; ++r) {
    const int64_t from = r * past_cols + plan.kv_heads.begin * config.head_dim;
    std::copy_n(in.past_k.as<bf16>() + from, plan.kv_cols(), cache.KeyRow(0, r));
    std::copy_n(in.past_v.as<bf16>() + from, plan.kv_cols(), cache.ValueRow(0, r));
  }
  cache.Advance(in.past_k.shape[0]);

  const uint8_t* gen = in.gen.as<uint8_t>();
  const bool wide = std::any_of(gen, gen + rows, [](uint8_t g) { return g != 0; });
  const int32_t* position = in.position.as<int32_t>();
  Pass pass;
  pass.AddBlock(&cache, /*append=*/false, in.causal);
  for (int64_t i = 0; i < rows; ++i) {
    pass.AddRow(gen[i] != 0, wide, position[i], position[rows + i], position[2 * rows + i]);
  }
  pass.Finish();
  const std::vector<int32_t>& order = pass.blocks()[0].rows;
  for (int64_t i = 0; i < rows; ++i) {
    std::copy_n(in.x.as<bf16>() + i * config.hidden_size, config.hidden_size,
                transformer.stream().row(order[i]));
  }
  LayerTrace trace;
  LANCET_RETURN_IF_ERROR(transformer.ForwardLayer(0, pass, collective, absl::Minutes(1), &trace));

  // Ranks write disjoint columns, or the same values where heads are replicated; one after another by the
  // barriers.
  for (int turn = 0; turn < context.world_size; ++turn) {
    if (turn == rank) {
      const int64_t q_begin = plan.query_heads.begin * config.head_dim;
      const int64_t kv_begin = plan.kv_heads.begin * config.head_dim;
      const int64_t q_full = config.num_heads * config.head_dim;
      Place(trace.q, order, plan.q_cols(), q_begin, q_full, out.q);
      Place(trace.k, order, plan.kv_cols(), kv_begin, past_cols, out.k);
      Place(trace.v, order, plan.kv_cols(), kv_begin, past_cols, out.v);
      Place(trace.attn, order, plan.q_cols(), q_begin, q_full, out.attn);
      Place(trace.mid, order, config.hidden_size, 0, config.hidden_size, out.mid);
      const MatrixView<bf16> stream = transformer.stream();
      Place(std::vector<bf16>(stream.data, stream.data + rows * config.hidden_size), order,
            config.hidden_size, 0, config.hidden_size, out.out);
    }
    LANCET_RETURN_IF_ERROR(collective.Barrier(absl::Now() + absl::Minutes(1)));
  }
  return absl::OkStatus();
}

Positions PositionsOf(const LayerInput& in) {
  const int64_t rows = in.gen.num_elements();
  const int32_t* p = in.position.as<int32_t>();
  Positions positions;
  positions.t.assign(p, p + rows);
  positions.h.assign(p + rows, p + 2 * rows);
  positions.w.assign(p + 2 * rows, p + 3 * rows);
  return positions;
}

std::vector<double> Widened(const std::vector<bf16>& values) {
  std::vector<double> wide;
  for (const bf16 x : values) wide.push_back(ToFloat(x));
  return wide;
}

// The block as the device packs it. A block of latents has its markers first and last.
absl::StatusOr<StageLayerInput::Block> BlockOf(const LayerInput& in) {
  const uint8_t* gen = in.gen.as<uint8_t>();
  const int64_t rows = in.gen.num_elements();
  if (std::none_of(gen, gen + rows, [](uint8_t g) { return g != 0; })) {
    return in.causal ? StageLayerInput::Block::kText : StageLayerInput::Block::kVision;
  }
  if (rows > 2 && gen[0] == 0 && gen[rows - 1] == 0 &&
      std::all_of(gen + 1, gen + rows - 1, [](uint8_t g) { return g != 0; })) {
    return StageLayerInput::Block::kLatents;
  }
  return absl::InvalidArgumentError("the rows of a block with latents are not markers around them");
}

absl::StatusOr<LayerOutput> RunOnDevice(const GoldenContext& context, const LayerInput& in,
                                        StageLayerInput::Block block) {
  const ModelConfig& config = context.checkpoint.config();
  const int64_t kv_cols = config.num_kv_heads * config.head_dim;
  StageLayerInput input;
  input.block = block;
  input.x = {in.x.as<bf16>(), in.x.shape[0], in.x.shape[1]};
  input.positions = PositionsOf(in);
  input.past_k = {in.past_k.as<bf16>(), in.past_k.shape[0], kv_cols};
  input.past_v = {in.past_v.as<bf16>(), in.past_v.shape[0], kv_cols};
  LANCET_ASSIGN_OR_RETURN(const StageLayerOutput got, context.cuda->Layer(input));
  return LayerOutput{Widened(got.q),    Widened(got.k),   Widened(got.v),
                     Widened(got.attn), Widened(got.mid), Widened(got.out)};
}

void CompareLayer(const GoldenContext& context, const std::string& case_name, const LayerOutput& out,
                  const StateDict& dict, const std::string& way = "") {
  for (const auto& [quantity, values] : {std::pair<const char*, const std::vector<double>*>{"q", &out.q},
                                         {"k", &out.k},
                                         {"v", &out.v},
                                         {"attn", &out.attn},
                                         {"mid", &out.mid},
                                         {"out", &out.out}}) {
    if (!values->empty()) CompareRms(context, case_name, quantity, *values, dict, way);
  }
}

}  // namespace

absl::Status RunLayerCase(const GoldenContext& context, const std::string& case_name) {
  const ModelConfig& config = context.checkpoint.config();
  LANCET_ASSIGN_OR_RETURN(const auto dict, context.folder.Tensors(case_name));
  LANCET_ASSIGN_OR_RETURN(const LayerInput in, ReadInput(*dict, config, case_name == "layer_und"));
  if (context.cuda != nullptr) {
    LANCET_ASSIGN_OR_RETURN(const StageLayerInput::Block block, BlockOf(in));
    LANCET_ASSIGN_OR_RETURN(const LayerOutput got, RunOnDevice(context, in, block));
    CompareLayer(context, case_name, got, *dict);
    if (block != StageLayerInput::Block::kText) return absl::OkStatus();
    // Answers take a way of their own, token by token.
    LANCET_ASSIGN_OR_RETURN(const LayerOutput single,
                            RunOnDevice(context, in, StageLayerInput::Block::kAnswers));
    CompareLayer(context, case_name, single, *dict, "single ");
    return absl::OkStatus();
  }
  const int64_t rows = in.gen.num_elements();
  const int64_t q_cols = config.num_heads * config.head_dim;
  const int64_t kv_cols = config.num_kv_heads * config.head_dim;
  LayerOutput out;
  out.q.resize(rows * q_cols);
  out.attn.resize(rows * q_cols);
  out.k.resize(rows * kv_cols);
  out.v.resize(rows * kv_cols);
  out.mid.resize(rows * config.hidden_size);
  out.out.resize(rows * config.hidden_size);
  LANCET_RETURN_IF_ERROR(RunOnRanks(
      context.world_size, kRowChunk * config.hidden_size,
      [&](int rank, Collective& collective) { return RunRank(context, in, rank, collective, out); }));
  CompareLayer(context, case_name, out, *dict);
  return absl::OkStatus();
}

}  // namespace lancet
