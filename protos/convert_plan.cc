#include <cmath>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/status_macros.h"
#include "common/trace_context.h"
#include "protos/convert.h"
#include "protos/convert_values.h"

namespace lancet {
namespace {

void PositionsToProto(const Positions& from, v1::Positions& to) {
  to.mutable_t()->Add(from.t.begin(), from.t.end());
  to.mutable_h()->Add(from.h.begin(), from.h.end());
  to.mutable_w()->Add(from.w.begin(), from.w.end());
}

absl::StatusOr<Positions> PositionsFromProto(absl::string_view field, const v1::Positions& from,
                                             int64_t count) {
  if (from.t_size() != count || from.h_size() != count || from.w_size() != count) {
    return absl::InvalidArgumentError(absl::StrCat(field, ": ", from.t_size(), ", ", from.h_size(), " and ",
                                                   from.w_size(), " entries on axes t, h, w; expected ",
                                                   count, " on each"));
  }
  Positions to;
  to.t.assign(from.t().begin(), from.t().end());
  to.h.assign(from.h().begin(), from.h().end());
  to.w.assign(from.w().begin(), from.w().end());
  return to;
}

v1::PrefixKind PrefixKindToProto(PrefixKind kind) {
  switch (kind) {
    case PrefixKind::kText:
      return v1::PREFIX_KIND_TEXT;
    case PrefixKind::kVision:
      return v1::PREFIX_KIND_VISION;
    case PrefixKind::kLatents:
      return v1::PREFIX_KIND_LATENTS;
  }
  return v1::PREFIX_KIND_UNSPECIFIED;
}

absl::StatusOr<PrefixKind> PrefixKindFromProto(absl::string_view field, int kind) {
  switch (kind) {
    case v1::PREFIX_KIND_TEXT:
      return PrefixKind::kText;
    case v1::PREFIX_KIND_VISION:
      return PrefixKind::kVision;
    case v1::PREFIX_KIND_LATENTS:
      return PrefixKind::kLatents;
    default:
      return absl::InvalidArgumentError(absl::StrCat(field, ": unknown kind of prefix block ", kind));
  }
}

absl::StatusOr<PrefixBlock> PrefixFromProto(const std::string& field, const v1::PrefixBlock& from) {
  LANCET_RETURN_IF_ERROR(
      CheckRange(absl::StrCat(field, ": tokens"), from.token_ids_size(), 1, kMaxBlockTokens));
  PrefixBlock to;
  LANCET_ASSIGN_OR_RETURN(to.kind, PrefixKindFromProto(absl::StrCat(field, ".kind"), from.kind()));
  to.token_ids.assign(from.token_ids().begin(), from.token_ids().end());
  int64_t rows = from.token_ids_size();
  if (to.kind != PrefixKind::kText) {
    LANCET_RETURN_IF_ERROR(CheckRange(absl::StrCat(field, ": markers"), from.token_ids_size(), 2, 2));
    rows = from.positions().t_size();
    LANCET_RETURN_IF_ERROR(CheckRange(absl::StrCat(field, ": rows"), rows, int64_t{3}, kMaxPlanLatents + 2));
  }
  LANCET_ASSIGN_OR_RETURN(to.positions,
                          PositionsFromProto(absl::StrCat(field, ".positions"), from.positions(), rows));
  to.conditional = from.conditional();
  to.unconditional = from.unconditional();
  to.answered = from.answered();
  return to;
}

absl::StatusOr<TargetBlock> TargetFromProto(const v1::TargetBlock& from) {
  LANCET_RETURN_IF_ERROR(CheckRange("plan.target.latent_height", from.latent_height(), 1, kMaxLatentSide));
  LANCET_RETURN_IF_ERROR(CheckRange("plan.target.latent_width", from.latent_width(), 1, kMaxLatentSide));
  TargetBlock to;
  to.latent_height = from.latent_height();
  to.latent_width = from.latent_width();
  LANCET_RETURN_IF_ERROR(
      CheckRange("plan.target: latent_height * latent_width", to.num_latents(), int64_t{1}, kMaxPlanLatents));
  to.start_token_id = from.start_token_id();
  to.end_token_id = from.end_token_id();
  const int64_t tokens = to.num_latents() + 2;
  LANCET_ASSIGN_OR_RETURN(to.conditional,
                          PositionsFromProto("plan.target.conditional", from.conditional(), tokens));
  LANCET_ASSIGN_OR_RETURN(to.unconditional,
                          PositionsFromProto("plan.target.unconditional", from.unconditional(), tokens));
  return to;
}

v1::Solver SolverToProto(Solver solver) {
  switch (solver) {
    case Solver::kEuler:
      return v1::SOLVER_EULER;
    case Solver::kDpmpp2m:
      return v1::SOLVER_DPMPP_2M;
  }
  return v1::SOLVER_UNSPECIFIED;
}

absl::StatusOr<Solver> SolverFromProto(int solver) {
  switch (solver) {
    case v1::SOLVER_EULER:
      return Solver::kEuler;
    case v1::SOLVER_DPMPP_2M:
      return Solver::kDpmpp2m;
    default:
      return absl::InvalidArgumentError(absl::StrCat("plan.sampler.solver: unknown solver ", solver));
  }
}

absl::StatusOr<SamplerParams> SamplerFromProto(const v1::SamplerParams& from) {
  LANCET_RETURN_IF_ERROR(CheckRange("plan.sampler.num_steps", from.num_steps(), 1, kMaxPlanSteps));
  for (const auto& [field, value] : {std::pair{"timestep_shift", from.timestep_shift()},
                                     {"guidance_scale", from.guidance_scale()},
                                     {"guidance_start", from.guidance_start()},
                                     {"guidance_end", from.guidance_end()}}) {
    if (!std::isfinite(value)) {
      return absl::InvalidArgumentError(absl::StrCat("plan.sampler.", field, ": ", value, " is not finite"));
    }
  }
  SamplerParams to{from.num_steps(), from.timestep_shift(), from.guidance_scale(), from.guidance_start(),
                   from.guidance_end()};
  LANCET_ASSIGN_OR_RETURN(to.solver, SolverFromProto(from.solver()));
  return to;
}

absl::StatusOr<AnswerParams> AnswerFromProto(const v1::AnswerParams& from) {
  LANCET_RETURN_IF_ERROR(CheckRange("plan.answer.max_new_tokens", from.max_new_tokens(), 1, kMaxBlockTokens));
  LANCET_RETURN_IF_ERROR(CheckRange("plan.answer.temperature", from.temperature(), 0.0f, kMaxTemperature));
  LANCET_RETURN_IF_ERROR(CheckRange("plan.answer.first_index", from.first_index(), 0, kMaxBlockTokens));
  return AnswerParams{from.max_new_tokens(), from.temperature(),   from.first_token_id(),
                      from.first_position(), from.stop_token_id(), from.num_valid_tokens(),
                      from.first_index()};
}

void TargetToProto(const TargetBlock& from, v1::TargetBlock& to) {
  to.set_latent_height(from.latent_height);
  to.set_latent_width(from.latent_width);
  to.set_start_token_id(from.start_token_id);
  to.set_end_token_id(from.end_token_id);
  PositionsToProto(from.conditional, *to.mutable_conditional());
  PositionsToProto(from.unconditional, *to.mutable_unconditional());
}

void SamplerToProto(const SamplerParams& from, v1::SamplerParams& to) {
  to.set_num_steps(from.num_steps);
  to.set_timestep_shift(from.timestep_shift);
  to.set_guidance_scale(from.guidance_scale);
  to.set_guidance_start(from.guidance_start);
  to.set_guidance_end(from.guidance_end);
  to.set_solver(SolverToProto(from.solver));
}

void AnswerToProto(const AnswerParams& from, v1::AnswerParams& to) {
  to.set_max_new_tokens(from.max_new_tokens);
  to.set_temperature(from.temperature);
  to.set_first_token_id(from.first_token_id);
  to.set_first_position(from.first_position);
  to.set_stop_token_id(from.stop_token_id);
  to.set_num_valid_tokens(from.num_valid_tokens);
  to.set_first_index(from.first_index);
}

}  // namespace

v1::RequestPlan ToProto(const RequestPlan& plan) {
  v1::RequestPlan to;
  to.set_request_id(plan.request_id);
  for (const PrefixBlock& block : plan.prefix) {
    v1::PrefixBlock& b = *to.add_prefix();
    b.mutable_token_ids()->Add(block.token_ids.begin(), block.token_ids.end());
    PositionsToProto(block.positions, *b.mutable_positions());
    b.set_conditional(block.conditional);
    b.set_unconditional(block.unconditional);
    b.set_kind(PrefixKindToProto(block.kind));
    b.set_answered(block.answered);
  }
  if (plan.vision_image.has_value()) ImageToProto(*plan.vision_image, *to.mutable_vision_image());
  if (plan.condition_image.has_value()) ImageToProto(*plan.condition_image, *to.mutable_condition_image());
  to.set_sample_condition(plan.sample_condition);
  to.set_traceparent(plan.traceparent);
  if (plan.draws()) {
    TargetToProto(plan.target, *to.mutable_target());
    SamplerToProto(plan.sampler, *to.mutable_sampler());
  }
  if (plan.answer.has_value()) AnswerToProto(*plan.answer, *to.mutable_answer());
  to.set_seed(plan.seed);
  if (plan.snapshot.has_value()) SnapshotToProto(*plan.snapshot, *to.mutable_snapshot());
  return to;
}

absl::StatusOr<RequestPlan> FromProto(const v1::RequestPlan& plan) {
  LANCET_RETURN_IF_ERROR(CheckRange("plan.prefix: blocks", plan.prefix_size(), 0, kMaxPrefixBlocks));
  RequestPlan to;
  to.request_id = plan.request_id();
  for (int i = 0; i < plan.prefix_size(); ++i) {
    LANCET_ASSIGN_OR_RETURN(PrefixBlock block,
                            PrefixFromProto(absl::StrCat("plan.prefix[", i, "]"), plan.prefix(i)));
    to.prefix.push_back(std::move(block));
  }
  if (plan.has_target() == plan.has_answer()) {
    return absl::InvalidArgumentError(absl::StrCat("plan: ", plan.has_target() ? "both" : "neither",
                                                   " of target and answer; expected one"));
  }
  if (plan.has_target()) {
    LANCET_ASSIGN_OR_RETURN(to.target, TargetFromProto(plan.target()));
    LANCET_ASSIGN_OR_RETURN(to.sampler, SamplerFromProto(plan.sampler()));
  } else {
    LANCET_ASSIGN_OR_RETURN(to.answer, AnswerFromProto(plan.answer()));
  }
  if (plan.has_vision_image()) {
    LANCET_ASSIGN_OR_RETURN(to.vision_image, ImageFromProto("plan.vision_image", plan.vision_image()));
  }
  if (plan.has_condition_image()) {
    LANCET_ASSIGN_OR_RETURN(to.condition_image,
                            ImageFromProto("plan.condition_image", plan.condition_image()));
  }
  to.sample_condition = plan.sample_condition();
  // It ends up in logs.
  if (!plan.traceparent().empty()) LANCET_RETURN_IF_ERROR(ParseTraceparent(plan.traceparent()).status());
  to.traceparent = plan.traceparent();
  to.seed = plan.seed();
  if (plan.has_snapshot()) {
    LANCET_ASSIGN_OR_RETURN(to.snapshot, SnapshotFromProto("plan.snapshot", plan.snapshot()));
  }
  return to;
}

}  // namespace lancet
