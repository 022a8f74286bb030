#include "worker/engine/engine_impl.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/logging.h"
#include "common/noise.h"
#include "common/status_macros.h"
#include "kernels/rms_norm.h"
#include "worker/engine/denoise.h"
#include "worker/engine/latent_preview.h"
#include "worker/loader/shard_plan.h"

namespace lancet {
namespace {

// Tokens of a text block that go through the trunk in one pass. Causal blocks may be cut anywhere: the cached
// part is what the rest attends to.
constexpr int64_t kPrefillChunk = 512;

std::vector<bf16> SeedNoise(uint64_t seed, int64_t num_latents) {
  std::vector<float> normal(num_latents * kLatentChannels);
  FillNormalNoise(seed, static_cast<int64_t>(normal.size()), 0, absl::MakeSpan(normal));
  std::vector<bf16> noise(normal.size());
  std::transform(normal.begin(), normal.end(), noise.begin(), ToBf16);
  return noise;
}

// A made-up request that passes through every stage once.
RequestPlan WarmUpPlan(const ModelConfig& config, int64_t max_latents) {
  RequestPlan plan;
  const int32_t side =
      static_cast<int32_t>(std::min<int64_t>(4, std::sqrt(static_cast<double>(max_latents))));
  PrefixBlock block;
  block.token_ids = {config.eos_token_id};
  block.positions = {{0}, {0}, {0}};
  plan.prefix.push_back(block);
  block.unconditional = false;
  block.positions = {{1}, {1}, {1}};
  plan.prefix.push_back(block);
  plan.target.latent_height = side;
  plan.target.latent_width = side;
  plan.target.start_token_id = config.vision_start_token_id;
  plan.target.end_token_id = config.vision_end_token_id;
  const std::vector<int32_t> ids(plan.target.num_latents() + 2, 2);
  plan.target.conditional = {ids, ids, ids};
  plan.target.unconditional = {ids, ids, ids};
  plan.sampler.num_steps = 1;
  return plan;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> Engine::Load(const Checkpoint& checkpoint,
                                                     const EngineOptions& options) {
  if (options.max_latents < 1 || options.max_requests < 1) {
    return absl::InvalidArgumentError(absl::StrCat("max_latents ", options.max_latents, " and max_requests ",
                                                   options.max_requests, " must be at least 1"));
  }
  EngineImpl::Parts parts;
  parts.options = options;
  parts.config = checkpoint.config();
  CpuOptions cpu;
  cpu.threads = options.threads;
  cpu.nice = 10;  // commands must reach gRPC's threads without waiting for a scheduler tick
  LANCET_ASSIGN_OR_RETURN(parts.ctx, KernelContext::CreateCpu(cpu));
  parts.ctx->BindCallingThread();
  LANCET_ASSIGN_OR_RETURN(const ShardPlan plan,
                          MakeShardPlan(parts.config, options.rank, options.world_size));
  LANCET_ASSIGN_OR_RETURN(TrunkWeights weights,
                          TrunkWeights::Load(*parts.ctx, checkpoint.trunk(), parts.config, plan));
  const int64_t max_rows = 2 * std::max(options.max_latents + 2, kPrefillChunk);
  parts.transformer =
      std::make_unique<Transformer>(*parts.ctx, parts.config, plan, std::move(weights), max_rows);
  if (options.rank == 0) {
    VaeDecoderOptions vae_options;
    vae_options.max_latents = options.max_latents;
    LANCET_ASSIGN_OR_RETURN(parts.vae, VaeDecoder::Load(*parts.ctx, checkpoint.vae(), vae_options));
    parts.latent_rgb = checkpoint.card().latent_rgb;
    if (!parts.latent_rgb.has_value()) {
      LANCET_ASSIGN_OR_RETURN(const LatentRgbFit fit, FitLatentRgbFromDecoder(*parts.ctx, *parts.vae));
      parts.latent_rgb = fit.map;
      LogInfo("fitted preview colours to the decoder: lancet.json gives none", {{"r2", fit.quality.r2}});
    }
  }
  return std::make_unique<EngineImpl>(std::move(parts));
}

EngineImpl::EngineImpl(Parts parts)
    : options_(parts.options),
      config_(parts.config),
      ctx_(std::move(parts.ctx)),
      transformer_(std::move(parts.transformer)),
      vae_(std::move(parts.vae)),
      latent_rgb_(parts.latent_rgb),
      positions_(config_.hidden_size, config_.max_latent_side),
      normed_(options_.max_latents * config_.hidden_size),
      velocity_(2 * options_.max_latents * kLatentChannels) {}

size_t EngineImpl::collective_capacity() const {
  return static_cast<size_t>(transformer_->reduce_capacity());
}

std::string EngineImpl::device() const { return ctx_->description(); }

absl::Status EngineImpl::Attach(Collective* collective) {
  if (collective->rank() != options_.rank || collective->world_size() != options_.world_size) {
    return absl::InvalidArgumentError(absl::StrCat("collective of rank ", collective->rank(), " of ",
                                                   collective->world_size(), "; this engine is rank ",
                                                   options_.rank, " of ", options_.world_size));
  }
  ctx_->BindCallingThread();
  requests_.clear();
  collective_ = collective;
  return absl::OkStatus();
}

absl::Status EngineImpl::WarmUp() {
  const RequestPlan plan = WarmUpPlan(config_, options_.max_latents);
  LANCET_RETURN_IF_ERROR(Admit(plan));
  std::vector<Work> work;
  for (size_t i = 0; i < plan.prefix.size(); ++i) {
    work.push_back({plan.request_id, WorkKind::kPrefill, static_cast<int32_t>(i), PreviewMethod::kNone});
  }
  work.push_back({plan.request_id, WorkKind::kDenoise, 0, PreviewMethod::kLatentRgb});
  work.push_back({plan.request_id, WorkKind::kDecode, 0, PreviewMethod::kNone});
  LANCET_RETURN_IF_ERROR(Iterate(work).status());
  return Release(plan.request_id);
}

absl::Status EngineImpl::Admit(const RequestPlan& plan) {
  if (collective_ == nullptr) return absl::FailedPreconditionError("Admit before Attach");
  if (requests_.contains(plan.request_id)) {
    return absl::AlreadyExistsError(absl::StrCat("request ", plan.request_id, " is already admitted"));
  }
  if (static_cast<int>(requests_.size()) >= options_.max_requests) {
    return absl::ResourceExhaustedError(
        absl::StrCat("this rank holds ", requests_.size(), " requests, its limit"));
  }
  LANCET_RETURN_IF_ERROR(CheckPlan(plan, config_, options_.max_latents));
  const int64_t values = plan.target.num_latents() * kLatentChannels;
  std::vector<bf16> noise;
  if (trace_ != nullptr) noise = trace_->StartNoise(plan.request_id).value_or(std::vector<bf16>{});
  if (noise.empty()) noise = SeedNoise(plan.seed, plan.target.num_latents());
  if (static_cast<int64_t>(noise.size()) != values) {
    return absl::InvalidArgumentError(absl::StrCat("start noise of ", noise.size(), " values for ", values));
  }
  auto run = std::make_unique<RequestRun>(plan, config_.num_layers, transformer_->plan().kv_cols(),
                                          std::move(noise));
  if (trace_ != nullptr) trace_->OnLatents(plan.request_id, 0, run->latents_view());
  requests_.emplace(plan.request_id, std::move(run));
  return absl::OkStatus();
}

absl::StatusOr<std::vector<WorkResult>> EngineImpl::Iterate(const std::vector<Work>& work) {
  if (collective_ == nullptr) return absl::FailedPreconditionError("Iterate before Attach");
  std::vector<WorkResult> results;
  for (const Work& item : work) {
    LANCET_ASSIGN_OR_RETURN(WorkResult result, Execute(item));
    results.push_back(std::move(result));
  }
  return results;
}

absl::Status EngineImpl::Release(uint64_t request_id) {
  if (requests_.erase(request_id) == 0) {
    return absl::NotFoundError(absl::StrCat("request ", request_id, " is not admitted"));
  }
  return absl::OkStatus();
}

absl::StatusOr<WorkResult> EngineImpl::Execute(const Work& work) {
  const auto it = requests_.find(work.request_id);
  if (it == requests_.end()) {
    return absl::InvalidArgumentError(
        absl::StrCat("work for request ", work.request_id, ", which is not admitted"));
  }
  RequestRun& run = *it->second;
  const absl::Time start = absl::Now();
  WorkResult result;
  result.request_id = work.request_id;
  result.kind = work.kind;
  result.index = work.index;
  switch (work.kind) {
    case WorkKind::kPrefill:
      LANCET_RETURN_IF_ERROR(Prefill(run, work.index));
      break;
    case WorkKind::kDenoise:
      LANCET_RETURN_IF_ERROR(Denoise(run, work.index, work.preview, result));
      break;
    case WorkKind::kDecode:
      LANCET_RETURN_IF_ERROR(Decode(run, result));
      break;
    case WorkKind::kEncodeVision:
    case WorkKind::kEncodeLatents:
    case WorkKind::kAnswer:
      return absl::UnimplementedError("this engine draws from text only");
  }
  result.seconds = absl::ToDoubleSeconds(absl::Now() - start);
  return result;
}

void EngineImpl::EmbedTokens(const int32_t* ids, int64_t count, MatrixView<bf16> out) const {
  const bf16* table = transformer_->weights().embed_tokens.data();
  for (int64_t i = 0; i < count; ++i) {
    std::copy_n(table + ids[i] * config_.hidden_size, config_.hidden_size, out.row(i));
  }
}

absl::Status EngineImpl::Prefill(RequestRun& run, int32_t index) {
  if (index != run.blocks_done || index >= static_cast<int32_t>(run.plan.prefix.size())) {
    return absl::InvalidArgumentError(absl::StrCat("prefill of block ", index, " of ", run.plan.prefix.size(),
                                                   "; block ", run.blocks_done, " is next"));
  }
  const PrefixBlock& block = run.plan.prefix[index];
  // While both caches hold the same, only one is computed.
  const bool shared = run.guided() && !run.forked && block.conditional && block.unconditional;
  if (run.guided() && !run.forked && !shared) {
    run.unconditional->ForkFrom(*run.conditional, config_.num_layers);
    run.forked = true;
  }
  const bool conditional = block.conditional || shared;
  const bool unconditional = run.guided() && block.unconditional && !shared;
  const int64_t tokens = static_cast<int64_t>(block.token_ids.size());
  for (int64_t begin = 0; begin < tokens && (conditional || unconditional); begin += kPrefillChunk) {
    const int64_t count = std::min(kPrefillChunk, tokens - begin);
    Pass pass;
    MatrixView<bf16> rows = transformer_->stream();
    for (KvCache* cache :
         {conditional ? run.conditional.get() : nullptr, unconditional ? run.unconditional.get() : nullptr}) {
      if (cache == nullptr) continue;
      EmbedTokens(block.token_ids.data() + begin, count, rows.Rows(pass.rows(), count));
      pass.AddText(cache, block.positions, begin, count);
    }
    pass.Finish();
    LANCET_RETURN_IF_ERROR(transformer_->Forward(pass, *collective_, options_.collective_timeout));
  }
  ++run.blocks_done;
  return absl::OkStatus();
}

absl::Status EngineImpl::EmbedTarget(RequestRun& run, float t, MatrixView<bf16> markers,
                                     MatrixView<bf16> latents) {
  const TargetBlock& target = run.plan.target;
  EmbedTokens(&target.start_token_id, 1, markers.Rows(0, 1));
  EmbedTokens(&target.end_token_id, 1, markers.Rows(1, 1));
  std::vector<bf16> time(config_.hidden_size);
  const MatrixView<bf16> time_row(time.data(), 1, config_.hidden_size);
  LANCET_RETURN_IF_ERROR(EmbedTime(*ctx_, transformer_->weights(), t, time_row));
  return EmbedLatents(*ctx_, transformer_->weights(), positions_, run.latents_view(), target.latent_width,
                      time_row, latents);
}

absl::Status EngineImpl::Velocity(MatrixView<bf16> rows, MatrixView<bf16> velocity) {
  const MatrixView<bf16> normed(normed_.data(), rows.rows, rows.cols);
  LANCET_RETURN_IF_ERROR(
      RmsNorm(*ctx_, rows, transformer_->weights().gen_norm, config_.rms_norm_eps, normed));
  return transformer_->weights().llm2vae[0].Forward(*ctx_, normed, velocity);
}

absl::Status EngineImpl::Denoise(RequestRun& run, int32_t step, PreviewMethod preview, WorkResult& result) {
  const RequestPlan& plan = run.plan;
  if (run.blocks_done != static_cast<int32_t>(plan.prefix.size()) || step != run.steps_done ||
      step >= plan.sampler.num_steps) {
    return absl::InvalidArgumentError(absl::StrCat("step ", step, " of ", plan.sampler.num_steps, " after ",
                                                   run.blocks_done, " of ", plan.prefix.size(),
                                                   " blocks and ", run.steps_done, " steps"));
  }
  if (run.guided() && !run.forked) {
    run.unconditional->ForkFrom(*run.conditional, config_.num_layers);
    run.forked = true;
  }
  const int64_t last_layer = config_.num_layers - 1;
  if (trace_ != nullptr && step == 0) {
    trace_->OnCache(plan.request_id, true, run.conditional->Keys(last_layer),
                    run.conditional->Values(last_layer));
    if (run.guided()) {
      trace_->OnCache(plan.request_id, false, run.unconditional->Keys(last_layer),
                      run.unconditional->Values(last_layer));
    }
  }

  // Both branches share one pass: und rows are the markers of either, gen rows the latents of either.
  const float t = run.times[step];
  const bool guided = IsGuided(plan.sampler, t);
  const int64_t n = plan.target.num_latents();
  Pass pass;
  pass.AddTarget(run.conditional.get(), plan.target.conditional);
  if (guided) pass.AddTarget(run.unconditional.get(), plan.target.unconditional);
  pass.Finish();
  const MatrixView<bf16> stream = transformer_->stream();
  const MatrixView<bf16> gen = stream.Rows(pass.und_rows(), pass.gen_rows());
  LANCET_RETURN_IF_ERROR(EmbedTarget(run, t, stream.Rows(0, 2), gen.Rows(0, n)));
  if (guided) {
    std::copy_n(stream.row(0), 2 * config_.hidden_size, stream.row(2));
    std::copy_n(gen.row(0), n * config_.hidden_size, gen.row(n));
  }
  LANCET_RETURN_IF_ERROR(transformer_->Forward(pass, *collective_, options_.collective_timeout));

  const MatrixView<bf16> velocity(velocity_.data(), n, kLatentChannels);
  LANCET_RETURN_IF_ERROR(Velocity(gen.Rows(0, n), velocity));
  if (trace_ != nullptr) trace_->OnVelocity(plan.request_id, step, true, velocity);
  if (guided) {
    const MatrixView<bf16> unconditional(velocity_.data() + n * kLatentChannels, n, kLatentChannels);
    LANCET_RETURN_IF_ERROR(Velocity(gen.Rows(n, n), unconditional));
    if (trace_ != nullptr) trace_->OnVelocity(plan.request_id, step, false, unconditional);
    ApplyGuidance(plan.sampler.guidance_scale, unconditional, velocity);
  }
  const float next = run.times[step + 1];
  EulerStep(velocity, t - next, run.latents_view());
  ++run.steps_done;
  if (trace_ != nullptr) trace_->OnLatents(plan.request_id, run.steps_done, run.latents_view());
  if (preview != PreviewMethod::kNone && options_.rank == 0) {
    LANCET_ASSIGN_OR_RETURN(result.preview,
                            MakePreview(run, preview, EstimateClean(run.latents_view(), velocity, next)));
  }
  return absl::OkStatus();
}

absl::StatusOr<RgbImage> EngineImpl::MakePreview(const RequestRun& run, PreviewMethod method,
                                                 const std::vector<float>& clean) {
  const TargetBlock& target = run.plan.target;
  const ConstMatrixView<float> latents(clean.data(), target.num_latents(), kLatentChannels);
  if (method == PreviewMethod::kLatentRgb) {
    return LatentsToRgb(*latent_rgb_, latents, target.latent_height, target.latent_width);
  }
  return vae_->DecodeToImage(*ctx_, latents, target.latent_height, target.latent_width);
}

absl::Status EngineImpl::Decode(RequestRun& run, WorkResult& result) {
  if (run.steps_done != run.plan.sampler.num_steps || run.decoded) {
    return absl::InvalidArgumentError(absl::StrCat("decode after ", run.steps_done, " of ",
                                                   run.plan.sampler.num_steps, " steps",
                                                   run.decoded ? ", a second time" : ""));
  }
  run.decoded = true;
  if (options_.rank != 0) return absl::OkStatus();
  const TargetBlock& target = run.plan.target;
  std::vector<float> latents(run.latents.size());
  std::transform(run.latents.begin(), run.latents.end(), latents.begin(), ToFloat);
  LANCET_ASSIGN_OR_RETURN(result.image,
                          vae_->DecodeToImage(*ctx_, {latents.data(), target.num_latents(), kLatentChannels},
                                              target.latent_height, target.latent_width));
  return absl::OkStatus();
}

}  // namespace lancet
