#include "worker/engine/cpu_runner.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "kernels/bf16_gemm.h"
#include "kernels/rms_norm.h"
#include "worker/engine/denoise.h"
#include "worker/engine/latent_preview.h"
#include "worker/engine/start_noise.h"
#include "worker/loader/shard_plan.h"

namespace lancet {
namespace {

// A pass takes at least this many rows, so that text comes in pieces worth expanding weights for.
constexpr int64_t kLeastMaxRows = 1024;

// The caches that a prefix block goes to.
std::vector<KvCache*> CachesOf(CpuRequest& request, int32_t index) {
  if (index < request.layout.fork_block) return {&request.shared};
  const PrefixBlock& block = request.plan.prefix[index];
  std::vector<KvCache*> caches;
  if (block.conditional) caches.push_back(&request.conditional);
  if (block.unconditional && request.layout.guided) caches.push_back(&request.unconditional);
  return caches;
}

CpuRequest& Cast(ModelRequest& request) { return static_cast<CpuRequest&>(request); }

}  // namespace

absl::StatusOr<std::unique_ptr<CpuRunner>> CpuRunner::Load(const Checkpoint& checkpoint,
                                                           const EngineOptions& options) {
  auto runner = std::unique_ptr<CpuRunner>(new CpuRunner(options));
  const ModelConfig& config = runner->config_ = checkpoint.config();
  CpuOptions cpu;
  cpu.threads = options.threads;
  cpu.cpus = options.cpus;
  cpu.nice = 10;  // commands must reach gRPC's threads without waiting for a scheduler tick
  LANCET_ASSIGN_OR_RETURN(runner->ctx_, KernelContext::CreateCpu(cpu));
  const KernelContext& ctx = *runner->ctx_;
  ctx.BindCallingThread();
  LANCET_ASSIGN_OR_RETURN(const ShardPlan plan, MakeShardPlan(config, options.rank, options.world_size));
  const bool can_answer = checkpoint.vision() != nullptr;
  LANCET_ASSIGN_OR_RETURN(const LinearPolicy policy, LinearPolicy::Create(checkpoint, options.linears));
  if (options.linears.mode == LinearMode::kW4A8Fp8 || options.linears.mode == LinearMode::kW4A4) {
    LogInfo("the CPU emulates a GPU's products", {{"linear_mode", LinearModeName(options.linears.mode)}});
  }
  LANCET_ASSIGN_OR_RETURN(TrunkWeights weights,
                          TrunkWeights::Load(ctx, checkpoint.trunk(), config, plan, can_answer, policy));
  ModelLimits& limits = runner->limits_;
  limits.max_latents = options.max_latents;
  limits.max_rows = std::max(2 * (options.max_latents + 2), kLeastMaxRows);
  // Ranks may own different numbers of heads; the smallest allowance counts, so each reports its own.
  const int64_t token_bytes = config.num_layers * 2 * plan.kv_cols() * static_cast<int64_t>(sizeof(bf16));
  limits.cache_tokens = token_bytes > 0 ? options.cache_bytes / token_bytes : INT64_MAX;
  if (can_answer) {
    const VisionConfig& vision_config = *checkpoint.vision_config();
    limits.max_patches = options.max_patches;
    limits.patch_px = vision_config.patch_size;
    limits.cell_px = vision_config.patch_size * vision_config.merge_size;
    VisionEncoderOptions vision_options;
    vision_options.max_patches = options.max_patches;
    LANCET_ASSIGN_OR_RETURN(runner->vision_,
                            VisionEncoder::Load(ctx, *checkpoint.vision(), vision_config, options.rank,
                                                options.world_size, vision_options));
  }
  runner->transformer_ =
      std::make_unique<Transformer>(ctx, config, plan, std::move(weights), limits.max_rows);
  if (options.rank == 0) {
    VaeDecoderOptions vae_options;
    vae_options.max_latents = options.max_latents;
    LANCET_ASSIGN_OR_RETURN(runner->vae_, VaeDecoder::Load(ctx, checkpoint.vae(), vae_options));
    if (can_answer) {
      VaeEncoderOptions encoder_options;
      encoder_options.max_latents = options.max_latents;
      LANCET_ASSIGN_OR_RETURN(runner->vae_encoder_, VaeEncoder::Load(ctx, checkpoint.vae(), encoder_options));
    }
    runner->latent_rgb_ = checkpoint.card().latent_rgb;
    if (!runner->latent_rgb_.has_value()) {
      LANCET_ASSIGN_OR_RETURN(const LatentRgbFit fit, FitLatentRgbFromDecoder(ctx, *runner->vae_));
      runner->latent_rgb_ = fit.map;
      LogInfo("fitted preview colours to the decoder: lancet.json gives none", {{"r2", fit.quality.r2}});
    }
  }
  runner->positions_.emplace(config.hidden_size, config.max_latent_side);
  runner->normed_.resize(std::max<int64_t>(options.max_latents, options.max_requests) * config.hidden_size);
  runner->velocity_.resize(2 * options.max_latents * kLatentChannels);
  runner->logits_.resize(options.max_requests * runner->transformer_->weights().head_rows.size());
  return runner;
}

size_t CpuRunner::collective_capacity() const {
  const int64_t vision = vision_ != nullptr ? vision_->reduce_capacity() : 0;
  return static_cast<size_t>(std::max(transformer_->reduce_capacity(), vision));
}

absl::Status CpuRunner::Attach(Collective* collective) {
  ctx_->BindCallingThread();
  collective_ = collective;
  return absl::OkStatus();
}

void CpuRunner::set_trace(EngineTrace* trace) {
  trace_ = trace;
  if (trace == nullptr) {
    transformer_->set_input_sink(nullptr);
    return;
  }
  transformer_->set_input_sink(
      [trace](int64_t layer, Expert expert, FusedLinear linear, ConstMatrixView<bf16> x) {
        trace->OnLinearInput(layer, expert == Expert::kGen, linear, x);
      });
}

absl::StatusOr<std::unique_ptr<ModelRequest>> CpuRunner::Admit(const RequestPlan& plan) {
  auto request = std::make_unique<CpuRequest>(plan, config_.num_layers, transformer_->plan().kv_cols());
  if (plan.answer.has_value()) request->last_token = plan.answer->first_token_id;
  if (!plan.draws()) return request;
  request->times = TimestepSchedule(plan.sampler.num_steps, plan.sampler.timestep_shift);
  if (plan.snapshot.has_value()) {
    const LatentSnapshot& snapshot = *plan.snapshot;
    request->latents = snapshot.latents;
    if (plan.sampler.solver == Solver::kDpmpp2m) {
      request->solver.Resume(snapshot.previous_clean, request->times[snapshot.step - 1]);
    }
    return request;
  }
  if (trace_ != nullptr) {
    request->latents = trace_->StartNoise(plan.request_id).value_or(std::vector<bf16>{});
  }
  if (request->latents.empty()) request->latents = SeedNoise(plan);
  const int64_t values = plan.target.num_latents() * kLatentChannels;
  if (static_cast<int64_t>(request->latents.size()) != values) {
    return absl::InvalidArgumentError(
        absl::StrCat("start noise of ", request->latents.size(), " values for ", values));
  }
  if (trace_ != nullptr) trace_->OnLatents(plan.request_id, 0, request->latents_view());
  return request;
}

absl::Status CpuRunner::EncodeVision(ModelRequest& request) {
  CpuRequest& mine = Cast(request);
  const RgbImage& image = *mine.plan.vision_image;
  const int64_t tokens = vision_->TokensOf(image);
  mine.features.resize(tokens * config_.hidden_size);
  const MatrixView<bf16> features(mine.features.data(), tokens, config_.hidden_size);
  LANCET_RETURN_IF_ERROR(vision_->EncodePicture(image, *collective_, options_.collective_timeout, features));
  if (trace_ != nullptr) trace_->OnFeatures(mine.plan.request_id, features);
  return absl::OkStatus();
}

absl::Status CpuRunner::EncodeLatents(ModelRequest& request) {
  CpuRequest& mine = Cast(request);
  const RgbImage& image = *mine.plan.condition_image;
  const int64_t rows = int64_t{image.width / kPixelsPerLatent} * (image.height / kPixelsPerLatent);
  mine.condition.resize(rows * kLatentChannels);
  if (options_.rank == 0) {
    LANCET_ASSIGN_OR_RETURN(const std::vector<float> latents,
                            vae_encoder_->Encode(*ctx_, image, ConditionNoise(mine.plan)));
    std::transform(latents.begin(), latents.end(), mine.condition.begin(), ToBf16);
  }
  LANCET_RETURN_IF_ERROR(collective_->Broadcast(
      {reinterpret_cast<std::byte*>(mine.condition.data()), mine.condition.size() * sizeof(bf16)}, 0,
      absl::Now() + options_.collective_timeout));
  if (trace_ != nullptr) {
    trace_->OnConditionLatents(mine.plan.request_id, {mine.condition.data(), rows, kLatentChannels});
  }
  return absl::OkStatus();
}

CpuRunner::Placed CpuRunner::Place(const PassItem& item, Pass& pass) const {
  Placed placed;
  placed.request = &Cast(*item.request);
  placed.work = item.work;
  placed.und = pass.und_rows();
  placed.gen = pass.gen_rows();
  CpuRequest& request = *placed.request;
  switch (item.work.kind) {
    case WorkKind::kPrefill: {
      const PrefixBlock& block = request.plan.prefix[item.work.index];
      placed.rows = item.work.count > 0 ? item.work.count : block.rows() - item.work.begin;
      const std::vector<KvCache*> caches = CachesOf(request, item.work.index);
      placed.copies = static_cast<int>(caches.size());
      for (KvCache* cache : caches) {
        switch (block.kind) {
          case PrefixKind::kText:
            if (block.answered) {
              pass.AddAnswered(cache, block.positions, item.work.begin, placed.rows);
            } else {
              pass.AddText(cache, block.positions, item.work.begin, placed.rows);
            }
            break;
          case PrefixKind::kVision:
            pass.AddVision(cache, block.positions);
            break;
          case PrefixKind::kLatents:
            pass.AddLatents(cache, block.positions, /*append=*/true);
            break;
        }
      }
      break;
    }
    case WorkKind::kDenoise: {
      const TargetBlock& target = request.plan.target;
      placed.guided = request.layout.guided && IsGuided(request.plan.sampler, request.times[item.work.index]);
      placed.rows = target.num_latents() + 2;
      placed.copies = placed.guided ? 2 : 1;
      pass.AddLatents(&request.conditional, target.conditional, /*append=*/false);
      if (placed.guided) pass.AddLatents(&request.unconditional, target.unconditional, /*append=*/false);
      break;
    }
    case WorkKind::kAnswer: {
      const int32_t position = request.plan.answer->first_position + item.work.index;
      placed.rows = 1;
      pass.AddAnswer(&request.conditional, position);
      break;
    }
    case WorkKind::kDecode:
    case WorkKind::kEncodeVision:
    case WorkKind::kEncodeLatents:
      break;
  }
  return placed;
}

void CpuRunner::EmbedTokens(absl::Span<const int32_t> ids, MatrixView<bf16> out) const {
  const bf16* table = transformer_->weights().embed_tokens.get();
  for (size_t i = 0; i < ids.size(); ++i) {
    std::copy_n(table + ids[i] * config_.hidden_size, config_.hidden_size, out.row(static_cast<int64_t>(i)));
  }
}

absl::Status CpuRunner::EmbedLatentRows(ConstMatrixView<bf16> latents, int64_t latent_width, float t,
                                        MatrixView<bf16> out) {
  std::vector<bf16> time(config_.hidden_size);
  const MatrixView<bf16> time_row(time.data(), 1, config_.hidden_size);
  LANCET_RETURN_IF_ERROR(EmbedTime(*ctx_, transformer_->weights(), t, time_row));
  return EmbedLatents(*ctx_, transformer_->weights(), *positions_, latents, latent_width, time_row, out);
}

absl::Status CpuRunner::Embed(const Placed& placed, int64_t first_gen) {
  const CpuRequest& request = *placed.request;
  const int64_t hidden = config_.hidden_size;
  const MatrixView<bf16> stream = transformer_->stream();
  int64_t und_rows = placed.rows;
  int64_t gen_rows = 0;
  const MatrixView<bf16> und = stream.Rows(placed.und, std::min(placed.rows, stream.rows - placed.und));
  if (placed.work.kind == WorkKind::kAnswer) {
    EmbedTokens({&request.last_token, 1}, und);
    return absl::OkStatus();
  }
  const bool target = placed.work.kind == WorkKind::kDenoise;
  const PrefixBlock* block = target ? nullptr : &request.plan.prefix[placed.work.index];
  if (!target && block->kind == PrefixKind::kText) {
    EmbedTokens(absl::MakeConstSpan(block->token_ids).subspan(placed.work.begin, placed.rows), und);
  } else if (!target && block->kind == PrefixKind::kVision) {
    EmbedTokens({&block->token_ids[0], 1}, und.Rows(0, 1));
    std::copy_n(request.features.data(), request.features.size(), und.row(1));
    EmbedTokens({&block->token_ids[1], 1}, und.Rows(placed.rows - 1, 1));
  } else {
    const int32_t markers[2] = {target ? request.plan.target.start_token_id : block->token_ids[0],
                                target ? request.plan.target.end_token_id : block->token_ids[1]};
    und_rows = 2;
    gen_rows = placed.rows - 2;
    EmbedTokens(markers, und.Rows(0, 2));
    const std::vector<bf16>& latents = target ? request.latents : request.condition;
    const int64_t width =
        target ? request.plan.target.latent_width : request.plan.condition_image->width / kPixelsPerLatent;
    // A condition is a clean picture: its time is 0.
    const float t = target ? request.times[placed.work.index] : 0.0f;
    LANCET_RETURN_IF_ERROR(EmbedLatentRows({latents.data(), gen_rows, kLatentChannels}, width, t,
                                           stream.Rows(first_gen + placed.gen, gen_rows)));
  }
  for (int copy = 1; copy < placed.copies; ++copy) {
    std::copy_n(stream.row(placed.und), und_rows * hidden, stream.row(placed.und + copy * und_rows));
    if (gen_rows == 0) continue;
    const int64_t gen = first_gen + placed.gen;
    std::copy_n(stream.row(gen), gen_rows * hidden, stream.row(gen + copy * gen_rows));
  }
  return absl::OkStatus();
}

absl::Status CpuRunner::RunPass(absl::Span<const PassItem> items, absl::Span<WorkResult> results) {
  Pass pass;
  std::vector<Placed> placed;
  for (const PassItem& item : items) placed.push_back(Place(item, pass));
  pass.Finish();
  if (pass.rows() > limits_.max_rows) {
    return absl::InvalidArgumentError(
        absl::StrCat("a pass of ", pass.rows(), " rows; this rank has scratch for ", limits_.max_rows));
  }
  for (const Placed& item : placed) {
    if (trace_ != nullptr && item.work.kind == WorkKind::kDenoise && item.work.index == 0) {
      TraceCaches(*item.request);
    }
    LANCET_RETURN_IF_ERROR(Embed(item, pass.und_rows()));
  }
  LANCET_RETURN_IF_ERROR(transformer_->Forward(pass, *collective_, options_.collective_timeout));
  for (size_t i = 0; i < placed.size(); ++i) {
    if (placed[i].work.kind != WorkKind::kDenoise) continue;
    LANCET_RETURN_IF_ERROR(Step(placed[i], pass.und_rows(), results[i]));
  }
  return PickTokens(placed, results);
}

void CpuRunner::TraceCaches(const CpuRequest& request) {
  const int64_t layer = config_.num_layers - 1;
  for (const bool conditional : {true, false}) {
    if (!conditional && !request.layout.guided) continue;
    const KvCache& cache = conditional ? request.conditional : request.unconditional;
    std::vector<bf16> keys, values;
    const KvCache::Past past = cache.PastOf(layer);
    for (const PastTokens& part : past.parts()) {
      keys.insert(keys.end(), part.k.data, part.k.data + part.k.rows * part.k.cols);
      values.insert(values.end(), part.v.data, part.v.data + part.v.rows * part.v.cols);
    }
    const int64_t cols = transformer_->plan().kv_cols();
    const int64_t rows = cols > 0 ? static_cast<int64_t>(keys.size()) / cols : 0;
    trace_->OnCache(request.plan.request_id, conditional, {keys.data(), rows, cols},
                    {values.data(), rows, cols});
  }
}

absl::Status CpuRunner::Velocity(MatrixView<bf16> rows, MatrixView<bf16> velocity) {
  const MatrixView<bf16> normed(normed_.data(), rows.rows, rows.cols);
  const TrunkWeights& weights = transformer_->weights();
  LANCET_RETURN_IF_ERROR(RmsNorm(*ctx_, rows, weights.gen_norm, config_.rms_norm_eps, normed));
  return Bf16Gemm(*ctx_, normed, weights.llm2vae.weight, weights.llm2vae.bias, velocity);
}

absl::Status CpuRunner::Step(const Placed& placed, int64_t first_gen, WorkResult& result) {
  CpuRequest& request = *placed.request;
  const RequestPlan& plan = request.plan;
  const int32_t step = placed.work.index;
  const int64_t n = plan.target.num_latents();
  const MatrixView<bf16> gen = transformer_->stream().Rows(first_gen + placed.gen, n * placed.copies);
  const MatrixView<bf16> velocity(velocity_.data(), n, kLatentChannels);
  LANCET_RETURN_IF_ERROR(Velocity(gen.Rows(0, n), velocity));
  if (trace_ != nullptr) trace_->OnVelocity(plan.request_id, step, true, velocity);
  if (placed.guided) {
    const MatrixView<bf16> unconditional(velocity_.data() + n * kLatentChannels, n, kLatentChannels);
    LANCET_RETURN_IF_ERROR(Velocity(gen.Rows(n, n), unconditional));
    if (trace_ != nullptr) trace_->OnVelocity(plan.request_id, step, false, unconditional);
    ApplyGuidance(plan.sampler.guidance_scale, unconditional, velocity);
  }
  const float t = request.times[step];
  const float next = request.times[step + 1];
  std::vector<float> clean;
  const bool preview = placed.work.preview != PreviewMethod::kNone && options_.rank == 0;
  switch (plan.sampler.solver) {
    case Solver::kEuler:
      EulerStep(velocity, t - next, request.latents_view());
      if (preview) clean = EstimateClean(request.latents_view(), velocity, next);
      break;
    case Solver::kDpmpp2m:
      if (preview) clean = EstimateClean(request.latents_view(), velocity, t);
      request.solver.Step(velocity, t, next, request.latents_view());
      break;
  }
  if (trace_ != nullptr) trace_->OnLatents(plan.request_id, step + 1, request.latents_view());
  if (placed.work.snapshot && options_.rank == 0) {
    result.snapshot = LatentSnapshot{step + 1, request.latents, request.solver.previous_clean()};
  }
  if (preview) {
    LANCET_ASSIGN_OR_RETURN(result.preview, MakePreview(request, placed.work.preview, clean));
  }
  return absl::OkStatus();
}

absl::Status CpuRunner::PickTokens(absl::Span<const Placed> placed, absl::Span<WorkResult> results) {
  std::vector<size_t> answers;
  for (size_t i = 0; i < placed.size(); ++i) {
    if (placed[i].work.kind == WorkKind::kAnswer) answers.push_back(i);
  }
  if (answers.empty()) return absl::OkStatus();
  const int64_t count = static_cast<int64_t>(answers.size());
  const TrunkWeights& weights = transformer_->weights();
  const int64_t share = weights.head_rows.size();
  std::vector<bf16> last(count * config_.hidden_size);
  for (int64_t k = 0; k < count; ++k) {
    std::copy_n(transformer_->stream().row(placed[answers[k]].und), config_.hidden_size,
                last.data() + k * config_.hidden_size);
  }
  const MatrixView<bf16> normed(normed_.data(), count, config_.hidden_size);
  LANCET_RETURN_IF_ERROR(RmsNorm(*ctx_, MatrixView<bf16>(last.data(), count, config_.hidden_size),
                                 weights.und_norm, config_.rms_norm_eps, normed));
  const MatrixView<bf16> logits(logits_.data(), count, share);
  LANCET_RETURN_IF_ERROR(weights.head.Run(*ctx_, normed, logits));

  std::vector<TokenChoice> mine(count);
  for (int64_t k = 0; k < count; ++k) {
    const RequestPlan& plan = placed[answers[k]].request->plan;
    const int32_t index = placed[answers[k]].work.index;
    const absl::Span<const bf16> row(logits.row(k), share);
    if (trace_ != nullptr) trace_->OnLogits(plan.request_id, index, weights.head_rows.begin, row);
    mine[k] =
        ChooseToken(*plan.answer, plan.seed, plan.answer->first_index + index, weights.head_rows.begin, row);
  }
  std::vector<TokenChoice> all(count * options_.world_size);
  const auto bytes = [](std::vector<TokenChoice>& v) {
    return absl::Span<std::byte>(reinterpret_cast<std::byte*>(v.data()), v.size() * sizeof(TokenChoice));
  };
  LANCET_RETURN_IF_ERROR(
      collective_->AllGather(bytes(mine), bytes(all), absl::Now() + options_.collective_timeout));
  for (int64_t k = 0; k < count; ++k) {
    TokenChoice best;
    for (int rank = 0; rank < options_.world_size; ++rank) {
      const TokenChoice& choice = all[rank * count + k];
      if (choice.IsBetterThan(best)) best = choice;
    }
    if (best.id < 0) return absl::InternalError("every logit of an answer is NaN");
    CpuRequest& request = *placed[answers[k]].request;
    const AnswerParams& answer = *request.plan.answer;
    request.last_token = best.id;
    const bool ends =
        best.id == answer.stop_token_id || placed[answers[k]].work.index + 1 == answer.max_new_tokens;
    results[answers[k]].token = AnswerToken{best.id, ends};
  }
  return absl::OkStatus();
}

absl::StatusOr<RgbImage> CpuRunner::MakePreview(const CpuRequest& request, PreviewMethod method,
                                                const std::vector<float>& clean) {
  const TargetBlock& target = request.plan.target;
  const ConstMatrixView<float> latents(clean.data(), target.num_latents(), kLatentChannels);
  if (method == PreviewMethod::kLatentRgb) {
    return LatentsToRgb(*latent_rgb_, latents, target.latent_height, target.latent_width);
  }
  return vae_->DecodeToImage(*ctx_, latents, target.latent_height, target.latent_width);
}

absl::StatusOr<std::optional<RgbImage>> CpuRunner::Decode(ModelRequest& request) {
  if (options_.rank != 0) return std::nullopt;
  const CpuRequest& mine = Cast(request);
  const TargetBlock& target = mine.plan.target;
  std::vector<float> latents(mine.latents.size());
  std::transform(mine.latents.begin(), mine.latents.end(), latents.begin(), ToFloat);
  LANCET_ASSIGN_OR_RETURN(RgbImage image,
                          vae_->DecodeToImage(*ctx_, {latents.data(), target.num_latents(), kLatentChannels},
                                              target.latent_height, target.latent_width));
  return std::optional<RgbImage>(std::move(image));
}

}  // namespace lancet
