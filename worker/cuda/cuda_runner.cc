#include "worker/cuda/cuda_runner.h"

#include <algorithm>
#include <utility>

#include "absl/base/casts.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/logging.h"
#include "common/noise.h"
#include "common/status_macros.h"
#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/few_rows_linear.h"
#include "kernels/cuda/row_ops.h"
#include "kernels/cuda/vae_ops.h"
#include "worker/cuda/cuda_time_embedding.h"
#include "worker/engine/answer.h"
#include "worker/engine/cuda_runner.h"
#include "worker/engine/denoise.h"
#include "worker/engine/latent_preview.h"
#include "worker/engine/start_noise.h"
#include "worker/loader/device_shapes.h"
#include "worker/loader/shard_plan.h"
#include "worker/model/latent_embedding.h"

namespace lancet {
namespace {

constexpr int64_t kLeastMaxRows = 1024;
// For the devices of a group to find each other.
constexpr absl::Duration kFormTimeout = absl::Seconds(60);
// Captured passes: sizes of pictures, guided and not, and numbers of answers that come again and again. Each
// takes about a megabyte of the device.
constexpr size_t kMaxGraphs = 32;

CudaRequest& Cast(ModelRequest& request) { return static_cast<CudaRequest&>(request); }

}  // namespace

absl::StatusOr<std::unique_ptr<ModelRunner>> CreateCudaRunner(const Checkpoint& checkpoint,
                                                              const EngineOptions& options) {
  return CudaRunner::Load(checkpoint, options);
}

bool HasCudaDevice() { return CudaDeviceCount() > 0; }

absl::StatusOr<std::unique_ptr<CudaRunner>> CudaRunner::Load(const Checkpoint& checkpoint,
                                                             const EngineOptions& options) {
  std::unique_ptr<CudaRunner> runner(new CudaRunner(options));
  const ModelConfig& config = runner->config_ = checkpoint.config();
  runner->ordinal_ = options.device_ordinal;
  if (runner->ordinal_ < 0) runner->ordinal_ = options.rank % std::max(1, CudaDeviceCount());
  LANCET_ASSIGN_OR_RETURN(runner->ctx_, CudaContext::Create(runner->ordinal_));
  const CudaContext& ctx = *runner->ctx_;
  CpuOptions cpu;
  cpu.threads = options.threads;
  LANCET_ASSIGN_OR_RETURN(runner->cpu_, KernelContext::CreateCpu(cpu));
  runner->cpu_->BindCallingThread();
  LANCET_ASSIGN_OR_RETURN(const ShardPlan plan, MakeShardPlan(config, options.rank, options.world_size));
  LANCET_ASSIGN_OR_RETURN(runner->shard_, ShardConfig(config, plan));
  const bool can_answer = checkpoint.vision() != nullptr;
  const LinearMode mode = options.linears.mode;
  if (mode == LinearMode::kW4A8Int8) {
    return absl::InvalidArgumentError("linear mode w4a8_int8 is of CPUs; a CUDA device has w4a8_fp8");
  }
  if (options.linears.head != HeadForm::kBf16) {
    return absl::InvalidArgumentError("an int8 head is of CPUs; a CUDA device keeps it in bf16");
  }
  const CudaProducts products = mode == LinearMode::kW4A8Fp8 ? CudaProducts::kFp8
                                : mode == LinearMode::kW4A4  ? CudaProducts::kNvfp4
                                                             : CudaProducts::kBf16;
  LANCET_ASSIGN_OR_RETURN(const LinearPolicy policy, LinearPolicy::Create(checkpoint, options.linears));
  LANCET_ASSIGN_OR_RETURN(
      CudaTrunkWeights weights,
      CudaTrunkWeights::Load(ctx, checkpoint.trunk(), config, plan, products, can_answer, policy));
  ModelLimits& limits = runner->limits_;
  limits.max_latents = options.max_latents;
  limits.max_rows = std::max(2 * (options.max_latents + 2), kLeastMaxRows);
  const int64_t token_bytes = config.num_layers * 2 * plan.kv_cols() * static_cast<int64_t>(sizeof(bf16));
  limits.cache_tokens = options.cache_bytes / token_bytes;
  if (can_answer) {
    const VisionConfig& vision = *checkpoint.vision_config();
    limits.max_patches = options.max_patches;
    limits.patch_px = vision.patch_size;
    limits.cell_px = vision.patch_size * vision.merge_size;
  }
  // A request has at most two caches, each with up to two blocks in a pass.
  LANCET_ASSIGN_OR_RETURN(runner->trunk_, CudaTrunk::Create(ctx, runner->shard_, std::move(weights), products,
                                                            limits.max_rows, 4 * options.max_requests));
  VaeDecoderOptions vae_options;
  vae_options.max_latents = options.max_latents;
  MatmulPlans& matmul = runner->trunk_->matmul();
  runner->vae_layers_ = std::make_unique<CudaVaeLayers>(ctx, matmul);
  LANCET_ASSIGN_OR_RETURN(runner->vae_,
                          CudaVaeDecoder::Load(ctx, *runner->vae_layers_, checkpoint.vae(), vae_options));
  if (can_answer) {
    LANCET_ASSIGN_OR_RETURN(runner->vision_,
                            CudaVisionEncoder::Load(ctx, matmul, *checkpoint.vision(),
                                                    *checkpoint.vision_config(), options.max_patches));
    VaeEncoderOptions encoder_options;
    encoder_options.max_latents = options.max_latents;
    LANCET_ASSIGN_OR_RETURN(runner->vae_encoder_, CudaVaeEncoder::Load(ctx, *runner->vae_layers_,
                                                                       checkpoint.vae(), encoder_options));
  }
  runner->latent_rgb_ = checkpoint.card().latent_rgb;
  if (!runner->latent_rgb_.has_value()) {
    LANCET_ASSIGN_OR_RETURN(const LatentRgbFit fit, FitLatentRgbFromDecoder(*runner->cpu_, *runner->vae_));
    runner->latent_rgb_ = fit.map;
    LogInfo("fitted preview colours to the decoder: lancet.json gives none", {{"r2", fit.quality.r2}});
  }

  const LatentPositionTable table(config.hidden_size, config.max_latent_side);
  LANCET_ASSIGN_OR_RETURN(runner->table_, DeviceArray<bf16>::CopyOf(table.by_position(), ctx.stream()));
  LANCET_ASSIGN_OR_RETURN(runner->table_w_, DeviceArray<bf16>::CopyOf(table.by_position_w(), ctx.stream()));
  runner->positions_ = {runner->table_.data(), runner->table_w_.data(), config.max_latent_side,
                        table.extent_th()};
  const int64_t n = options.max_latents;
  LANCET_ASSIGN_OR_RETURN(runner->normed_, DeviceArray<bf16>::Create(limits.max_rows * config.hidden_size));
  LANCET_ASSIGN_OR_RETURN(runner->velocity_, DeviceArray<bf16>::Create(limits.max_rows * kLatentChannels));
  LANCET_ASSIGN_OR_RETURN(runner->preview_, DeviceArray<float>::Create(n * kLatentChannels));
  LANCET_ASSIGN_OR_RETURN(runner->norms_, DeviceArray<double>::Create(2 * cuda::kNormBlocks));
  if (can_answer) {
    LANCET_ASSIGN_OR_RETURN(
        runner->logits_,
        DeviceArray<bf16>::Create(options.max_requests * runner->trunk_->weights().head_rows.size()));
    LANCET_ASSIGN_OR_RETURN(runner->best_, DeviceArray<cuda::ArgmaxPair>::Create(
                                               int64_t{options.max_requests} * cuda::kArgmaxBlocks));
    LANCET_ASSIGN_OR_RETURN(runner->picked_, DeviceArray<int32_t>::Create(options.max_requests));
    LANCET_ASSIGN_OR_RETURN(runner->scores_, DeviceArray<float>::Create(options.max_requests));
  }
  LANCET_ASSIGN_OR_RETURN(runner->host_picked_, HostArray<int32_t>::Create(options.max_requests));
  LANCET_ASSIGN_OR_RETURN(runner->host_scores_, HostArray<float>::Create(options.max_requests));
  runner->graphs_.emplace(ctx, kMaxGraphs, options.collective_timeout);
  LANCET_RETURN_IF_ERROR(ctx.Wait(absl::Seconds(60)));
  // All scratch is taken by now; requests take their caches from what is left.
  if (const int64_t left = ctx.free_bytes(); options.cache_bytes > left) {
    return absl::ResourceExhaustedError(absl::StrCat("cache_bytes is ", options.cache_bytes,
                                                     "; weights and scratch leave ", left,
                                                     " bytes of the device's memory"));
  }
  return runner;
}

size_t CudaRunner::collective_capacity() const {
  // Nothing is summed over the host's collective.
  return 1;
}

absl::Status CudaRunner::Attach(Collective* collective) {
  collective_ = collective;
  cpu_->BindCallingThread();
  // The device is a property of the thread.
  LANCET_CUDA_RETURN_IF_ERROR(cudaSetDevice(ordinal_));
  return options_.world_size == 1 ? absl::OkStatus() : JoinGroup();
}

absl::Status CudaRunner::JoinGroup() {
  ctx_->set_watch(nullptr);
  // The old epoch's memory goes when the new group stands: by then no peer addresses it any more.
  if (group_ != nullptr) group_->Disconnect();
  DeviceCollectiveOptions options;
  options.transport = options_.device_transport;
  options.lane_bytes = trunk_->lane_bytes(options_.f32_partials);
  options.create_deadline = absl::Now() + std::min(kFormTimeout, options_.collective_timeout);
  LANCET_ASSIGN_OR_RETURN(auto group, DeviceCollective::Create(*ctx_, collective_, options));
  LANCET_RETURN_IF_ERROR(trunk_->Attach(group.get(), options_.f32_partials));
  LANCET_RETURN_IF_ERROR(vae_->ReserveShared(options_.world_size));
  ctx_->set_watch(group.get());
  group_ = std::move(group);
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<ModelRequest>> CudaRunner::Admit(const RequestPlan& plan) {
  auto request = std::make_unique<CudaRequest>(plan);
  const CacheLayout& layout = request->layout;
  const int64_t target_rows = plan.draws() ? plan.target.num_latents() + 2 : 0;
  const int64_t kv_cols = shard_.num_kv_heads * config_.head_dim;
  LANCET_ASSIGN_OR_RETURN(
      request->conditional,
      CudaKvCache::Create(config_.num_layers, layout.shared + layout.conditional + target_rows, kv_cols));
  if (layout.guided) {
    LANCET_ASSIGN_OR_RETURN(
        request->unconditional,
        CudaKvCache::Create(config_.num_layers, layout.shared + layout.unconditional + target_rows, kv_cols));
  }
  if (plan.answer.has_value()) request->last_token = plan.answer->first_token_id;
  if (plan.draws()) request->times = TimestepSchedule(plan.sampler.num_steps, plan.sampler.timestep_shift);
  if (plan.draws() || plan.condition_image.has_value()) {
    std::vector<float> times;
    if (plan.draws()) times.assign(request->times.begin(), request->times.begin() + plan.sampler.num_steps);
    times.push_back(0.0f);  // a condition is a clean picture
    LANCET_ASSIGN_OR_RETURN(request->time_rows,
                            EmbedTimes(*ctx_, trunk_->weights(), times, options_.collective_timeout));
  }
  if (!plan.draws()) return request;

  std::vector<bf16> noise;
  if (plan.snapshot.has_value()) {
    noise = plan.snapshot->latents;
  } else if (trace_ != nullptr) {
    noise = trace_->StartNoise(plan.request_id).value_or(std::vector<bf16>{});
  }
  if (noise.empty()) noise = SeedNoise(plan);
  const int64_t values = plan.target.num_latents() * kLatentChannels;
  if (static_cast<int64_t>(noise.size()) != values) {
    return absl::InvalidArgumentError(absl::StrCat("start noise of ", noise.size(), " values for ", values));
  }
  LANCET_ASSIGN_OR_RETURN(request->latents, DeviceArray<bf16>::CopyOf(noise, ctx_->stream()));
  LANCET_ASSIGN_OR_RETURN(request->clean, DeviceArray<float>::Create(values));
  if (plan.snapshot.has_value() && plan.sampler.solver == Solver::kDpmpp2m) {
    LANCET_RETURN_IF_ERROR(request->clean.CopyFrom(plan.snapshot->previous_clean, ctx_->stream()));
    request->previous_t = request->times[plan.snapshot->step - 1];
  }
  LANCET_RETURN_IF_ERROR(ctx_->Wait(options_.collective_timeout));
  if (trace_ != nullptr)
    trace_->OnLatents(plan.request_id, 0, {noise.data(), plan.target.num_latents(), kLatentChannels});
  return request;
}

absl::Status CudaRunner::EncodeVision(ModelRequest& request) {
  CudaRequest& mine = Cast(request);
  const RgbImage& image = *mine.plan.vision_image;
  const int64_t values = vision_->TokensOf(image) * config_.hidden_size;
  LANCET_ASSIGN_OR_RETURN(mine.features, DeviceArray<bf16>::Create(values));
  LANCET_RETURN_IF_ERROR(vision_->EncodePicture(image, mine.features.data()));
  if (trace_ == nullptr) return absl::OkStatus();
  std::vector<bf16> host;
  LANCET_RETURN_IF_ERROR(TraceRows(mine.features.data(), values, host));
  trace_->OnFeatures(mine.plan.request_id, {host.data(), values / config_.hidden_size, config_.hidden_size});
  return absl::OkStatus();
}

absl::Status CudaRunner::EncodeLatents(ModelRequest& request) {
  CudaRequest& mine = Cast(request);
  const RgbImage& image = *mine.plan.condition_image;
  const int64_t rows = int64_t{image.width / kPixelsPerLatent} * (image.height / kPixelsPerLatent);
  LANCET_ASSIGN_OR_RETURN(mine.condition, DeviceArray<bf16>::Create(rows * kLatentChannels));
  LANCET_RETURN_IF_ERROR(
      vae_encoder_->EncodePicture(image, ConditionNoise(mine.plan), mine.condition.data()));
  if (trace_ == nullptr) return absl::OkStatus();
  std::vector<bf16> host;
  LANCET_RETURN_IF_ERROR(TraceRows(mine.condition.data(), rows * kLatentChannels, host));
  trace_->OnConditionLatents(mine.plan.request_id, {host.data(), rows, kLatentChannels});
  return absl::OkStatus();
}

absl::Status CudaRunner::Fork(CudaRequest& request) {
  if (request.forked || !request.layout.guided) return absl::OkStatus();
  request.forked = true;
  return request.unconditional.CopyFrom(request.conditional, ctx_->stream());
}

absl::StatusOr<CudaRunner::Placed> CudaRunner::Place(const PassItem& item, CudaPass& pass) {
  Placed placed;
  placed.request = &Cast(*item.request);
  placed.work = item.work;
  placed.few = pass.few_rows();
  placed.many = pass.many_rows();
  placed.gen = pass.gen_rows();
  CudaRequest& request = *placed.request;
  if (item.work.kind == WorkKind::kAnswer) {
    pass.AddAnswer(&request.conditional, request.plan.answer->first_position + item.work.index);
    return placed;
  }
  if (item.work.kind == WorkKind::kDenoise) {
    LANCET_RETURN_IF_ERROR(Fork(request));
    placed.guided = request.layout.guided && IsGuided(request.plan.sampler, request.times[item.work.index]);
    placed.copies = placed.guided ? 2 : 1;
    placed.gen_rows = request.plan.target.num_latents();
    pass.AddLatents(&request.conditional, request.plan.target.conditional, /*append=*/false);
    if (placed.guided)
      pass.AddLatents(&request.unconditional, request.plan.target.unconditional, /*append=*/false);
    return placed;
  }
  const PrefixBlock& block = request.plan.prefix[item.work.index];
  std::vector<CudaKvCache*> caches;
  if (item.work.index < request.layout.fork_block) {
    caches.push_back(&request.conditional);
  } else {
    LANCET_RETURN_IF_ERROR(Fork(request));
    if (block.conditional) caches.push_back(&request.conditional);
    if (block.unconditional && request.layout.guided) caches.push_back(&request.unconditional);
  }
  placed.copies = static_cast<int>(caches.size());
  for (CudaKvCache* cache : caches) {
    switch (block.kind) {
      case PrefixKind::kText:
        if (block.answered) {
          pass.AddAnswer(cache, block.positions.t[item.work.begin]);
          break;
        }
        pass.AddText(cache, block.positions, item.work.begin,
                     item.work.count > 0 ? item.work.count : block.rows() - item.work.begin);
        break;
      case PrefixKind::kVision:
        pass.AddVision(cache, block.positions);
        break;
      case PrefixKind::kLatents:
        placed.gen_rows = block.rows() - 2;
        pass.AddLatents(cache, block.positions, /*append=*/true);
        break;
    }
  }
  return placed;
}

std::vector<int32_t> CudaRunner::TokenIds(absl::Span<const Placed> placed, const CudaPass& pass) const {
  std::vector<int32_t> ids(pass.und_rows());
  for (const Placed& item : placed) {
    const RequestPlan& plan = item.request->plan;
    int32_t* few = ids.data() + item.few;
    int32_t* many = ids.data() + pass.few_rows() + item.many;
    for (int copy = 0; copy < item.copies; ++copy) {
      if (item.work.kind == WorkKind::kAnswer) {
        *few++ = item.request->last_token;
        continue;
      }
      if (item.work.kind == WorkKind::kDenoise) {
        *few++ = plan.target.start_token_id;
        *few++ = plan.target.end_token_id;
        continue;
      }
      const PrefixBlock& block = plan.prefix[item.work.index];
      switch (block.kind) {
        case PrefixKind::kText: {
          if (block.answered) {
            *few++ = block.token_ids[item.work.begin];
            break;
          }
          const int64_t count = item.work.count > 0 ? item.work.count : block.rows() - item.work.begin;
          many = std::copy_n(block.token_ids.data() + item.work.begin, count, many);
          break;
        }
        case PrefixKind::kVision:
          // Rows of features are overwritten afterwards.
          std::fill_n(many, block.rows(), block.token_ids[0]);
          many[block.rows() - 1] = block.token_ids[1];
          many += block.rows();
          break;
        case PrefixKind::kLatents:
          *few++ = block.token_ids[0];
          *few++ = block.token_ids[1];
          break;
      }
    }
  }
  return ids;
}

std::vector<cuda::StepScalars> CudaRunner::Scalars(absl::Span<const Placed> placed) {
  std::vector<cuda::StepScalars> all;
  for (const Placed& item : placed) {
    if (item.gen_rows == 0) continue;
    CudaRequest& request = *item.request;
    const RequestPlan& plan = request.plan;
    cuda::StepScalars& scalars = all.emplace_back();
    if (item.work.kind != WorkKind::kDenoise) {
      scalars.step = plan.draws() ? plan.sampler.num_steps : 0;  // a condition is at time 0
      continue;
    }
    scalars.step = item.work.index;
    scalars.t = request.times[item.work.index];
    scalars.next_t = request.times[item.work.index + 1];
    scalars.dt = scalars.t - scalars.next_t;
    if (plan.sampler.solver != Solver::kDpmpp2m) continue;
    const SolverWeights weights = MultistepWeights(request.previous_t, scalars.t, scalars.next_t);
    scalars.keep = static_cast<float>(weights.latents);
    scalars.share = static_cast<float>(weights.clean);
    scalars.previous_share = static_cast<float>(weights.previous);
    request.previous_t = scalars.t;
  }
  return all;
}

absl::Status CudaRunner::EmbedPictures(absl::Span<const Placed> placed, const CudaPass& pass) {
  const int64_t hidden = config_.hidden_size;
  const cudaStream_t stream = ctx_->stream();
  const auto copy = [&](bf16* to, const bf16* from, int64_t values) {
    return CudaStatus(cudaMemcpyAsync(to, from, static_cast<size_t>(values) * sizeof(bf16),
                                      cudaMemcpyDeviceToDevice, stream),
                      "copy within the stream");
  };
  for (const Placed& item : placed) {
    CudaRequest& request = *item.request;
    const RequestPlan& plan = request.plan;
    const bool target = item.work.kind == WorkKind::kDenoise;
    const PrefixBlock* block = item.work.kind == WorkKind::kPrefill ? &plan.prefix[item.work.index] : nullptr;
    if (block != nullptr && block->kind == PrefixKind::kVision) {
      for (int k = 0; k < item.copies; ++k) {
        const int64_t row = pass.few_rows() + item.many + k * block->rows() + 1;
        LANCET_RETURN_IF_ERROR(
            copy(trunk_->stream_rows(row), request.features.data(), request.features.size()));
      }
    }
    if (item.gen_rows == 0) continue;
    bf16* const rows = trunk_->stream_rows(pass.und_rows() + item.gen);
    const int64_t width = target ? plan.target.latent_width : plan.condition_image->width / kPixelsPerLatent;
    const bf16* latents = target ? request.latents.data() : request.condition.data();
    LANCET_RETURN_IF_ERROR(trunk_->Dense(trunk_->weights().vae2llm, latents, item.gen_rows, rows));
    LANCET_CUDA_RETURN_IF_ERROR(
        cuda::AddTimeAndPosition(request.time_rows.data(), &trunk_->tables().scalars()[item.picture].step,
                                 positions_, item.gen_rows, width, hidden, rows, stream));
    for (int k = 1; k < item.copies; ++k) {
      LANCET_RETURN_IF_ERROR(copy(rows + k * item.gen_rows * hidden, rows, item.gen_rows * hidden));
    }
  }
  return absl::OkStatus();
}

absl::Status CudaRunner::Enqueue(const CudaPass& pass, absl::Span<const Placed> placed, int64_t answers) {
  const CudaTrunkWeights& weights = trunk_->weights();
  LANCET_CUDA_RETURN_IF_ERROR(cuda::GatherRows(weights.embed_tokens.data(), trunk_->tables().ids(),
                                               pass.und_rows(), config_.hidden_size, trunk_->stream_rows(),
                                               ctx_->stream()));
  LANCET_RETURN_IF_ERROR(EmbedPictures(placed, pass));
  LANCET_RETURN_IF_ERROR(trunk_->Forward(pass));
  const bool steps = std::any_of(placed.begin(), placed.end(),
                                 [](const Placed& item) { return item.work.kind == WorkKind::kDenoise; });
  if (steps) {
    // Of all latents at once, conditions among them included: one product for all pictures.
    cuda::RowOutput output;
    output.bf16_rows = normed_.data();
    LANCET_CUDA_RETURN_IF_ERROR(cuda::RmsNorm(trunk_->stream_rows(pass.und_rows()), config_.hidden_size,
                                              weights.gen_norm.data(), config_.rms_norm_eps, pass.gen_rows(),
                                              config_.hidden_size, output, ctx_->stream()));
    LANCET_RETURN_IF_ERROR(trunk_->Dense(weights.llm2vae, normed_.data(), pass.gen_rows(), velocity_.data()));
    for (const Placed& item : placed) {
      if (item.work.kind == WorkKind::kDenoise) LANCET_RETURN_IF_ERROR(EnqueueStep(item));
    }
  }
  if (answers == 0) return absl::OkStatus();
  if (answers == static_cast<int64_t>(placed.size())) return EnqueueAnswers(answers);
  return EnqueueMixedAnswers(placed);
}

CudaGraphs::Key CudaRunner::GraphKey(absl::Span<const Placed> placed) const {
  CudaGraphs::Key key;
  trunk_->AppendShape(key);
  key.push_back(valid_tokens_);
  const auto address = [](const void* p) { return static_cast<int64_t>(reinterpret_cast<intptr_t>(p)); };
  for (const Placed& item : placed) {
    const CudaRequest& request = *item.request;
    key.push_back(static_cast<int64_t>(item.work.kind));
    if (item.work.kind == WorkKind::kAnswer) continue;
    const SamplerParams& sampler = request.plan.sampler;
    for (const int64_t number :
         {item.gen_rows, int64_t{item.copies}, static_cast<int64_t>(item.guided),
          int64_t{request.plan.target.latent_width}, address(request.latents.data()),
          address(request.time_rows.data()), address(request.clean.data()),
          static_cast<int64_t>(sampler.solver), int64_t{absl::bit_cast<int32_t>(sampler.guidance_scale)}}) {
      key.push_back(number);
    }
  }
  return key;
}

absl::Status CudaRunner::EnqueueAnswers(int64_t count) {
  const CudaTrunkWeights& weights = trunk_->weights();
  const int64_t share = weights.head_rows.size();
  for (int64_t first = 0; first < count; first += cuda::kMaxFewRows) {
    cuda::FewRowsArgs args;
    args.x = trunk_->stream_rows(first);
    args.x_stride = config_.hidden_size;
    args.tokens = static_cast<int>(std::min<int64_t>(cuda::kMaxFewRows, count - first));
    args.norm = weights.und_norm.data();
    args.eps = config_.rms_norm_eps;
    args.dense = weights.head.data();
    args.rows = share;
    args.cols = config_.hidden_size;
    args.y = logits_.data() + first * share;
    args.y_stride = share;
    LANCET_CUDA_RETURN_IF_ERROR(cuda::FewRowsLinear(args, ctx_->stream()));
  }
  return CudaStatus(cuda::Argmax(logits_.data(), count, share, ValidShare(), best_.data(), picked_.data(),
                                 ctx_->stream(), scores_.data()),
                    "argmax");
}

int64_t CudaRunner::ValidShare() const {
  const Range& rows = trunk_->weights().head_rows;
  return std::clamp<int64_t>(valid_tokens_ - rows.begin, 0, rows.size());
}

absl::Status CudaRunner::RunPass(absl::Span<const PassItem> items, absl::Span<WorkResult> results) {
  CudaPass pass;
  std::vector<Placed> placed;
  int64_t answers = 0;
  int64_t pictures = 0;
  bool recurs = true;          // the next pass may be like this one
  bool pictures_wait = false;  // for a preview or a snapshot
  for (const PassItem& item : items) {
    LANCET_ASSIGN_OR_RETURN(placed.emplace_back(), Place(item, pass));
    Placed& last = placed.back();
    if (last.gen_rows > 0) last.picture = pictures++;
    answers += item.work.kind == WorkKind::kAnswer ? 1 : 0;
    recurs = recurs && item.work.kind != WorkKind::kPrefill;
    // Of previews the ranks have their parts of the decoder's pictures.
    pictures_wait =
        pictures_wait ||
        (item.work.kind == WorkKind::kDenoise &&
         (item.work.preview == PreviewMethod::kVae ||
          (options_.rank == 0 && (item.work.preview != PreviewMethod::kNone || item.work.snapshot))));
    if (trace_ != nullptr && item.work.kind == WorkKind::kDenoise && item.work.index == 0) {
      LANCET_RETURN_IF_ERROR(TraceCaches(*last.request));
    }
  }
  for (const Placed& item : placed) {
    if (item.work.kind == WorkKind::kAnswer) valid_tokens_ = item.request->plan.answer->num_valid_tokens;
  }
  const std::vector<int32_t> ids = TokenIds(placed, pass);
  const std::vector<cuda::StepScalars> scalars = Scalars(placed);
  LANCET_RETURN_IF_ERROR(trunk_->Prepare(pass, {ids, scalars}, options_.collective_timeout));
  const auto enqueue = [&] { return Enqueue(pass, placed, answers); };
  if (recurs && options_.cuda_graphs && trace_ == nullptr) {
    LANCET_RETURN_IF_ERROR(graphs_->Run(GraphKey(placed), enqueue));
  } else {
    LANCET_RETURN_IF_ERROR(enqueue());
  }
  pass.AdvanceCaches();
  // Without a result nobody has to wait: what follows is ordered by the stream, and the tables bound how many
  // passes may be on their way.
  if (answers == 0 && !pictures_wait) return absl::OkStatus();
  if (answers > 0) {
    LANCET_RETURN_IF_ERROR(
        picked_.CopyTo(absl::MakeSpan(host_picked_.data(), static_cast<size_t>(answers)), ctx_->stream()));
    LANCET_RETURN_IF_ERROR(
        scores_.CopyTo(absl::MakeSpan(host_scores_.data(), static_cast<size_t>(answers)), ctx_->stream()));
  }
  LANCET_RETURN_IF_ERROR(ctx_->Wait(options_.collective_timeout));
  for (size_t i = 0; pictures_wait && i < placed.size(); ++i) {
    if (placed[i].work.kind == WorkKind::kDenoise && placed[i].work.preview != PreviewMethod::kNone) {
      LANCET_RETURN_IF_ERROR(Preview(placed[i], results[i]));
    }
    if (placed[i].work.snapshot && options_.rank == 0) {
      LANCET_RETURN_IF_ERROR(TakeSnapshot(placed[i], results[i]));
    }
  }
  return answers > 0 ? ReadAnswers(placed, results) : absl::OkStatus();
}

absl::Status CudaRunner::EnqueueMixedAnswers(absl::Span<const Placed> placed) {
  // Rows of answers lie between other single rows: brought together first, in the order of the items.
  int64_t count = 0;
  for (const Placed& item : placed) {
    if (item.work.kind != WorkKind::kAnswer) continue;
    valid_tokens_ = item.request->plan.answer->num_valid_tokens;
    LANCET_CUDA_RETURN_IF_ERROR(cudaMemcpyAsync(trunk_->stream_rows(count), trunk_->stream_rows(item.few),
                                                static_cast<size_t>(config_.hidden_size) * sizeof(bf16),
                                                cudaMemcpyDeviceToDevice, ctx_->stream()));
    ++count;
  }
  return EnqueueAnswers(count);
}

absl::Status CudaRunner::TraceVelocity(const Placed& placed, bool conditional, const bf16* velocity) {
  const RequestPlan& plan = placed.request->plan;
  const int64_t n = plan.target.num_latents();
  std::vector<bf16> host;
  LANCET_RETURN_IF_ERROR(TraceRows(velocity, n * kLatentChannels, host));
  trace_->OnVelocity(plan.request_id, placed.work.index, conditional, {host.data(), n, kLatentChannels});
  return absl::OkStatus();
}

absl::Status CudaRunner::EnqueueStep(const Placed& placed) {
  CudaRequest& request = *placed.request;
  const RequestPlan& plan = request.plan;
  const int64_t n = plan.target.num_latents();
  const int64_t values = n * kLatentChannels;
  const cudaStream_t stream = ctx_->stream();
  const cuda::StepScalars* const scalars = trunk_->tables().scalars() + placed.picture;
  bf16* const velocity = velocity_.data() + placed.gen * kLatentChannels;
  for (int k = 0; trace_ != nullptr && k < placed.copies; ++k) {
    LANCET_RETURN_IF_ERROR(TraceVelocity(placed, /*conditional=*/k == 0, velocity + k * values));
  }
  if (placed.guided) {
    LANCET_CUDA_RETURN_IF_ERROR(cuda::ApplyGuidance(plan.sampler.guidance_scale, velocity + values, values,
                                                    velocity, norms_.data(), stream));
  }
  if (plan.sampler.solver == Solver::kDpmpp2m) {
    LANCET_CUDA_RETURN_IF_ERROR(
        cuda::MultistepStep(velocity, scalars, values, request.clean.data(), request.latents.data(), stream));
  } else {
    LANCET_CUDA_RETURN_IF_ERROR(cuda::EulerStep(velocity, scalars, values, request.latents.data(), stream));
  }
  if (trace_ == nullptr) return absl::OkStatus();
  std::vector<bf16> host;
  LANCET_RETURN_IF_ERROR(TraceRows(request.latents.data(), values, host));
  trace_->OnLatents(plan.request_id, placed.work.index + 1, {host.data(), n, kLatentChannels});
  return absl::OkStatus();
}

absl::Status CudaRunner::TakeSnapshot(const Placed& placed, WorkResult& result) {
  const CudaRequest& request = *placed.request;
  const auto values = static_cast<size_t>(request.plan.target.num_latents() * kLatentChannels);
  LatentSnapshot& snapshot = result.snapshot.emplace();
  snapshot.step = placed.work.index + 1;
  snapshot.latents.resize(values);
  LANCET_RETURN_IF_ERROR(request.latents.CopyTo(absl::MakeSpan(snapshot.latents), ctx_->stream()));
  if (request.plan.sampler.solver == Solver::kDpmpp2m) {
    snapshot.previous_clean.resize(values);
    LANCET_RETURN_IF_ERROR(request.clean.CopyTo(absl::MakeSpan(snapshot.previous_clean), ctx_->stream()));
  }
  return ctx_->Wait(options_.collective_timeout);
}

absl::Status CudaRunner::Preview(const Placed& placed, WorkResult& result) {
  // Only the decoder is every rank's business.
  if (options_.rank != 0 && placed.work.preview != PreviewMethod::kVae) return absl::OkStatus();
  CudaRequest& request = *placed.request;
  LANCET_CUDA_RETURN_IF_ERROR(cuda::EstimateClean(
      request.latents.data(), velocity_.data() + placed.gen * kLatentChannels,
      request.times[placed.work.index + 1], request.plan.target.num_latents() * kLatentChannels,
      preview_.data(), ctx_->stream()));
  LANCET_ASSIGN_OR_RETURN(result.preview, MakePreview(request, placed.work.preview));
  return absl::OkStatus();
}

absl::StatusOr<std::vector<TokenChoice>> CudaRunner::BestOfRanks(std::vector<TokenChoice> mine) {
  if (options_.world_size == 1) return mine;
  std::vector<TokenChoice> all(mine.size() * options_.world_size);
  const auto bytes = [](std::vector<TokenChoice>& choices) {
    return absl::Span<std::byte>(reinterpret_cast<std::byte*>(choices.data()),
                                 choices.size() * sizeof(TokenChoice));
  };
  LANCET_RETURN_IF_ERROR(
      collective_->AllGather(bytes(mine), bytes(all), absl::Now() + options_.collective_timeout));
  for (size_t i = 0; i < all.size(); ++i) {
    TokenChoice& best = mine[i % mine.size()];
    if (all[i].IsBetterThan(best)) best = all[i];
  }
  return mine;
}

absl::Status CudaRunner::ReadAnswers(absl::Span<const Placed> placed, absl::Span<WorkResult> results) {
  std::vector<size_t> answers;
  std::vector<TokenChoice> choices;
  const Range& ids = trunk_->weights().head_rows;
  for (size_t i = 0; i < placed.size(); ++i) {
    if (placed[i].work.kind != WorkKind::kAnswer) continue;
    const RequestPlan& plan = placed[i].request->plan;
    const AnswerParams& answer = *plan.answer;
    const int64_t index = static_cast<int64_t>(answers.size());
    answers.push_back(i);
    TokenChoice& choice = choices.emplace_back();
    if (answer.temperature > 0 || trace_ != nullptr || answer.num_valid_tokens != valid_tokens_) {
      std::vector<bf16> row;
      LANCET_RETURN_IF_ERROR(TraceRows(logits_.data() + index * ids.size(), ids.size(), row));
      if (trace_ != nullptr) trace_->OnLogits(plan.request_id, placed[i].work.index, ids.begin, row);
      choice = ChooseToken(answer, plan.seed, answer.first_index + placed[i].work.index, ids.begin, row);
    } else if (ValidShare() > 0) {
      choice = {host_scores_.data()[index], static_cast<int32_t>(ids.begin) + host_picked_.data()[index]};
    }
  }
  LANCET_ASSIGN_OR_RETURN(choices, BestOfRanks(std::move(choices)));
  for (size_t k = 0; k < answers.size(); ++k) {
    const Placed& item = placed[answers[k]];
    const AnswerParams& answer = *item.request->plan.answer;
    const int32_t id = choices[k].id;
    if (id < 0) return absl::InternalError("every logit of an answer is NaN");
    item.request->last_token = id;
    results[answers[k]].token =
        AnswerToken{id, id == answer.stop_token_id || item.work.index + 1 == answer.max_new_tokens};
  }
  return absl::OkStatus();
}

absl::StatusOr<std::optional<RgbImage>> CudaRunner::MakePreview(const CudaRequest& request,
                                                                PreviewMethod method) {
  const TargetBlock& target = request.plan.target;
  if (method == PreviewMethod::kVae) return DecodeEstimate(target);
  std::vector<float> clean(target.num_latents() * kLatentChannels);
  LANCET_RETURN_IF_ERROR(preview_.CopyTo(absl::MakeSpan(clean), ctx_->stream()));
  LANCET_RETURN_IF_ERROR(ctx_->Wait(options_.collective_timeout));
  return LatentsToRgb(*latent_rgb_, {clean.data(), target.num_latents(), kLatentChannels},
                      target.latent_height, target.latent_width);
}

absl::StatusOr<std::optional<RgbImage>> CudaRunner::Decode(ModelRequest& request) {
  const CudaRequest& mine = Cast(request);
  const TargetBlock& target = mine.plan.target;
  LANCET_CUDA_RETURN_IF_ERROR(cuda::WidenRows(mine.latents.data(), target.num_latents() * kLatentChannels,
                                              preview_.data(), ctx_->stream()));
  return DecodeEstimate(target);
}

absl::StatusOr<std::optional<RgbImage>> CudaRunner::DecodeEstimate(const TargetBlock& target) {
  if (group_ != nullptr) {
    return vae_->DecodeShared(preview_.data(), target.latent_height, target.latent_width, *group_);
  }
  LANCET_ASSIGN_OR_RETURN(RgbImage image,
                          vae_->DecodePicture(preview_.data(), target.latent_height, target.latent_width));
  return std::optional<RgbImage>(std::move(image));
}

absl::Status CudaRunner::TraceRows(const bf16* device, int64_t values, std::vector<bf16>& host) {
  host.resize(values);
  LANCET_CUDA_RETURN_IF_ERROR(cudaMemcpyAsync(host.data(), device, static_cast<size_t>(values) * sizeof(bf16),
                                              cudaMemcpyDeviceToHost, ctx_->stream()));
  return ctx_->Wait(options_.collective_timeout);
}

absl::Status CudaRunner::TraceCaches(const CudaRequest& request) {
  const int64_t layer = config_.num_layers - 1;
  for (const bool conditional : {true, false}) {
    if (!conditional && !request.layout.guided) continue;
    const CudaKvCache& cache = conditional ? request.conditional : request.unconditional;
    const int64_t values = cache.tokens() * cache.kv_cols();
    const bf16* base = cache.data() + layer * cache.layer_stride();
    std::vector<bf16> keys;
    std::vector<bf16> cached_values;
    LANCET_RETURN_IF_ERROR(TraceRows(base, values, keys));
    LANCET_RETURN_IF_ERROR(TraceRows(base + cache.v_offset(), values, cached_values));
    trace_->OnCache(request.plan.request_id, conditional, {keys.data(), cache.tokens(), cache.kv_cols()},
                    {cached_values.data(), cache.tokens(), cache.kv_cols()});
  }
  return absl::OkStatus();
}

}  // namespace lancet
