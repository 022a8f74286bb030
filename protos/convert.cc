#include "protos/convert.h"

#include <cmath>
#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/model_config.h"
#include "common/status_macros.h"
#include "common/trace_context.h"

namespace lancet {
namespace {

using Command = decltype(CommandMessage::command);

template <typename T, typename L>
absl::Status OutOfRange(absl::string_view field, T value, L lowest, L highest) {
  return absl::InvalidArgumentError(
      absl::StrCat(field, ": ", value, " is not within ", lowest, " to ", highest));
}

template <typename T>
absl::Status CheckRange(absl::string_view field, T value, T lowest, T highest) {
  // Written so that NaN fails.
  if (value >= lowest && value <= highest) return absl::OkStatus();
  return OutOfRange(field, value, lowest, highest);
}

absl::Status CheckText(absl::string_view field, const std::string& text, size_t limit) {
  if (text.size() <= limit) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(field, ": ", text.size(), " bytes, the limit is ", limit));
}

std::string Cut(const std::string& text) { return text.substr(0, kMaxReasonBytes); }

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

void ImageToProto(const RgbImage& from, v1::RgbImage& to) {
  to.set_width(from.width);
  to.set_height(from.height);
  to.set_pixels(from.pixels.data(), from.pixels.size());
}

absl::StatusOr<RgbImage> ImageFromProto(absl::string_view field, const v1::RgbImage& from) {
  LANCET_RETURN_IF_ERROR(CheckRange(absl::StrCat(field, ".width"), from.width(), 1, kMaxImageSide));
  LANCET_RETURN_IF_ERROR(CheckRange(absl::StrCat(field, ".height"), from.height(), 1, kMaxImageSide));
  const int64_t pixels = int64_t{from.width()} * from.height();
  LANCET_RETURN_IF_ERROR(
      CheckRange(absl::StrCat(field, ": width * height"), pixels, int64_t{1}, kMaxImagePixels));
  if (static_cast<int64_t>(from.pixels().size()) != 3 * pixels) {
    return absl::InvalidArgumentError(absl::StrCat(field, ".pixels: ", from.pixels().size(),
                                                   " bytes, expected ", from.width(), " x ", from.height(),
                                                   " x 3"));
  }
  return RgbImage{from.width(), from.height(), {from.pixels().begin(), from.pixels().end()}};
}

void SnapshotToProto(const LatentSnapshot& from, v1::LatentSnapshot& to) {
  to.set_step(from.step);
  to.set_latents(from.latents.data(), from.latents.size() * sizeof(bf16));
  to.set_previous_clean(from.previous_clean.data(), from.previous_clean.size() * sizeof(float));
}

// Whole values of at most kMaxPlanLatents latents.
template <typename T>
absl::StatusOr<std::vector<T>> ValuesFromBytes(absl::string_view field, const std::string& from) {
  constexpr size_t kLimit = static_cast<size_t>(kMaxPlanLatents) * kLatentChannels * sizeof(T);
  if (from.size() > kLimit || from.size() % (kLatentChannels * sizeof(T)) != 0) {
    return absl::InvalidArgumentError(absl::StrCat(field, ": ", from.size(),
                                                   " bytes, expected a multiple of ",
                                                   kLatentChannels * sizeof(T), " up to ", kLimit));
  }
  std::vector<T> to(from.size() / sizeof(T));
  // memcpy takes no null, not even for nothing.
  if (!to.empty()) std::memcpy(to.data(), from.data(), from.size());
  return to;
}

absl::StatusOr<LatentSnapshot> SnapshotFromProto(absl::string_view field, const v1::LatentSnapshot& from) {
  LatentSnapshot to;
  LANCET_RETURN_IF_ERROR(CheckRange(absl::StrCat(field, ".step"), from.step(), 1, kMaxPlanSteps));
  to.step = from.step();
  LANCET_ASSIGN_OR_RETURN(to.latents, ValuesFromBytes<bf16>(absl::StrCat(field, ".latents"), from.latents()));
  LANCET_ASSIGN_OR_RETURN(to.previous_clean, ValuesFromBytes<float>(absl::StrCat(field, ".previous_clean"),
                                                                    from.previous_clean()));
  return to;
}

v1::WorkKind KindToProto(WorkKind kind) {
  switch (kind) {
    case WorkKind::kPrefill:
      return v1::WORK_KIND_PREFILL;
    case WorkKind::kDenoise:
      return v1::WORK_KIND_DENOISE;
    case WorkKind::kDecode:
      return v1::WORK_KIND_DECODE;
    case WorkKind::kEncodeVision:
      return v1::WORK_KIND_ENCODE_VISION;
    case WorkKind::kEncodeLatents:
      return v1::WORK_KIND_ENCODE_LATENTS;
    case WorkKind::kAnswer:
      return v1::WORK_KIND_ANSWER;
  }
  return v1::WORK_KIND_UNSPECIFIED;
}

// The parameter is an int because a proto3 enum holds whatever number was sent.
absl::StatusOr<WorkKind> KindFromProto(absl::string_view field, int kind) {
  switch (kind) {
    case v1::WORK_KIND_PREFILL:
      return WorkKind::kPrefill;
    case v1::WORK_KIND_DENOISE:
      return WorkKind::kDenoise;
    case v1::WORK_KIND_DECODE:
      return WorkKind::kDecode;
    case v1::WORK_KIND_ENCODE_VISION:
      return WorkKind::kEncodeVision;
    case v1::WORK_KIND_ENCODE_LATENTS:
      return WorkKind::kEncodeLatents;
    case v1::WORK_KIND_ANSWER:
      return WorkKind::kAnswer;
    default:
      return absl::InvalidArgumentError(absl::StrCat(field, ": unknown kind of work ", kind));
  }
}

v1::WorkPreview PreviewToProto(PreviewMethod method) {
  switch (method) {
    case PreviewMethod::kNone:
      return v1::WORK_PREVIEW_UNSPECIFIED;
    case PreviewMethod::kLatentRgb:
      return v1::WORK_PREVIEW_LATENT_RGB;
    case PreviewMethod::kVae:
      return v1::WORK_PREVIEW_VAE;
  }
  return v1::WORK_PREVIEW_UNSPECIFIED;
}

absl::StatusOr<PreviewMethod> PreviewFromProto(absl::string_view field, int method) {
  switch (method) {
    case v1::WORK_PREVIEW_UNSPECIFIED:
      return PreviewMethod::kNone;
    case v1::WORK_PREVIEW_LATENT_RGB:
      return PreviewMethod::kLatentRgb;
    case v1::WORK_PREVIEW_VAE:
      return PreviewMethod::kVae;
    default:
      return absl::InvalidArgumentError(absl::StrCat(field, ": unknown preview method ", method));
  }
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

absl::StatusOr<Work> WorkFromProto(const v1::Work& from) {
  Work to;
  to.request_id = from.request_id();
  LANCET_ASSIGN_OR_RETURN(to.kind, KindFromProto("work.kind", from.kind()));
  LANCET_RETURN_IF_ERROR(CheckRange("work.index", from.index(), 0, kMaxWorkIndex));
  to.index = from.index();
  LANCET_ASSIGN_OR_RETURN(to.preview, PreviewFromProto("work.preview", from.preview()));
  LANCET_RETURN_IF_ERROR(CheckRange("work.begin", from.begin(), 0, kMaxBlockTokens));
  LANCET_RETURN_IF_ERROR(CheckRange("work.count", from.count(), 0, kMaxBlockTokens));
  to.begin = from.begin();
  to.count = from.count();
  to.snapshot = from.snapshot();
  return to;
}

absl::StatusOr<WorkResult> ResultFromProto(const v1::WorkResult& from) {
  WorkResult to;
  to.request_id = from.request_id();
  LANCET_ASSIGN_OR_RETURN(to.kind, KindFromProto("result.kind", from.kind()));
  LANCET_RETURN_IF_ERROR(CheckRange("result.index", from.index(), 0, kMaxWorkIndex));
  to.index = from.index();
  if (from.has_preview()) {
    LANCET_ASSIGN_OR_RETURN(to.preview, ImageFromProto("result.preview", from.preview()));
  }
  if (from.has_image()) {
    LANCET_ASSIGN_OR_RETURN(to.image, ImageFromProto("result.image", from.image()));
  }
  if (from.has_token()) to.token = AnswerToken{from.token().id(), from.token().last()};
  if (from.has_snapshot()) {
    LANCET_ASSIGN_OR_RETURN(to.snapshot, SnapshotFromProto("result.snapshot", from.snapshot()));
  }
  LANCET_RETURN_IF_ERROR(CheckRange("result.seconds", from.seconds(), 0.0, 1e9));
  to.seconds = from.seconds();
  return to;
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

void CommandToProto(const Command& from, v1::Command& to) {
  if (const auto* admit = std::get_if<AdmitCommand>(&from)) {
    *to.mutable_admit()->mutable_plan() = ToProto(admit->plan);
  } else if (const auto* iterate = std::get_if<IterateCommand>(&from)) {
    v1::Iterate& message = *to.mutable_iterate();
    for (const Work& work : iterate->work) {
      v1::Work& w = *message.add_work();
      w.set_request_id(work.request_id);
      w.set_kind(KindToProto(work.kind));
      w.set_index(work.index);
      w.set_preview(PreviewToProto(work.preview));
      w.set_begin(work.begin);
      w.set_count(work.count);
      w.set_snapshot(work.snapshot);
    }
  } else {
    to.mutable_release()->set_request_id(std::get<ReleaseCommand>(from).request_id);
  }
}

absl::StatusOr<Command> CommandFromProto(const v1::Command& from) {
  switch (from.command_case()) {
    case v1::Command::kAdmit: {
      LANCET_ASSIGN_OR_RETURN(RequestPlan plan, FromProto(from.admit().plan()));
      return Command(AdmitCommand{std::move(plan)});
    }
    case v1::Command::kIterate: {
      LANCET_RETURN_IF_ERROR(CheckRange("iterate.work", from.iterate().work_size(), 1, kMaxWorkPerIteration));
      IterateCommand iterate;
      for (const v1::Work& work : from.iterate().work()) {
        LANCET_ASSIGN_OR_RETURN(Work w, WorkFromProto(work));
        iterate.work.push_back(w);
      }
      return Command(std::move(iterate));
    }
    case v1::Command::kRelease:
      return Command(ReleaseCommand{from.release().request_id()});
    case v1::Command::COMMAND_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError("command: empty or unknown to this version");
}

absl::StatusOr<RankMessage> RegisterFromProto(const v1::Register& from) {
  for (const auto& [field, text] : {std::pair{"register.group", &from.group()},
                                    {"register.fingerprint", &from.fingerprint()},
                                    {"register.device", &from.device()},
                                    {"register.host", &from.host()},
                                    {"register.collective_address", &from.collective_address()},
                                    {"register.numerics", &from.numerics()}}) {
    LANCET_RETURN_IF_ERROR(CheckText(field, *text, kMaxNameBytes));
  }
  return RegisterMessage{.group = from.group(),
                         .rank = from.rank(),
                         .world_size = from.world_size(),
                         .fingerprint = from.fingerprint(),
                         .device = from.device(),
                         .host = from.host(),
                         .collective_address = from.collective_address(),
                         .max_latents = from.max_latents(),
                         .pid = from.pid(),
                         .max_rows = from.max_rows(),
                         .cache_tokens = from.cache_tokens(),
                         .has_vision = from.has_vision(),
                         .max_requests = from.max_requests(),
                         .max_patches = from.max_patches(),
                         .numerics = from.numerics()};
}

absl::StatusOr<RankMessage> DoneFromProto(const v1::Done& from) {
  LANCET_RETURN_IF_ERROR(CheckRange("done.results", from.results_size(), 0, kMaxWorkPerIteration));
  DoneMessage to{.epoch = from.epoch(), .number = from.number(), .results = {}};
  to.results.reserve(from.results_size());
  for (const v1::WorkResult& result : from.results()) {
    LANCET_ASSIGN_OR_RETURN(WorkResult r, ResultFromProto(result));
    to.results.push_back(std::move(r));
  }
  return to;
}

absl::StatusOr<CoordinatorMessage> FormFromProto(const v1::Form& from) {
  const int addresses = from.collective_addresses_size();
  if (addresses != 0 && addresses != from.world_size()) {
    return absl::InvalidArgumentError(absl::StrCat("form.collective_addresses: ", addresses,
                                                   " of them; expected none or world_size, which is ",
                                                   from.world_size()));
  }
  FormMessage to{from.epoch(), from.segment(), from.world_size(), {}};
  for (const std::string& address : from.collective_addresses()) {
    LANCET_RETURN_IF_ERROR(CheckText("form.collective_addresses", address, kMaxNameBytes));
    to.collective_addresses.push_back(address);
  }
  return to;
}

// One overload per alternative of a variant.
struct RankMessageWriter {
  v1::ConnectRequest& to;

  void operator()(const RegisterMessage& from) const {
    v1::Register& message = *to.mutable_register_();
    message.set_group(from.group);
    message.set_rank(from.rank);
    message.set_world_size(from.world_size);
    message.set_fingerprint(from.fingerprint);
    message.set_device(from.device);
    message.set_host(from.host);
    message.set_collective_address(from.collective_address);
    message.set_max_latents(from.max_latents);
    message.set_pid(from.pid);
    message.set_max_rows(from.max_rows);
    message.set_cache_tokens(from.cache_tokens);
    message.set_has_vision(from.has_vision);
    message.set_max_requests(from.max_requests);
    message.set_max_patches(from.max_patches);
    message.set_numerics(from.numerics);
  }
  void operator()(const ReadyMessage& from) const { to.mutable_ready()->set_epoch(from.epoch); }
  void operator()(const DoneMessage& from) const {
    v1::Done& message = *to.mutable_done();
    message.set_epoch(from.epoch);
    message.set_number(from.number);
    for (const WorkResult& result : from.results) {
      v1::WorkResult& r = *message.add_results();
      r.set_request_id(result.request_id);
      r.set_kind(KindToProto(result.kind));
      r.set_index(result.index);
      if (result.preview.has_value()) ImageToProto(*result.preview, *r.mutable_preview());
      if (result.image.has_value()) ImageToProto(*result.image, *r.mutable_image());
      if (result.token.has_value()) {
        r.mutable_token()->set_id(result.token->id);
        r.mutable_token()->set_last(result.token->last);
      }
      r.set_seconds(result.seconds);
      if (result.snapshot.has_value()) SnapshotToProto(*result.snapshot, *r.mutable_snapshot());
    }
  }
  void operator()(const FaultMessage& from) const {
    to.mutable_fault()->set_epoch(from.epoch);
    to.mutable_fault()->set_reason(Cut(from.reason));
  }
  void operator()(const PongMessage& from) const { to.mutable_pong()->set_id(from.id); }
  void operator()(const LeavingMessage& from) const {
    to.mutable_leaving()->set_grace_seconds(from.grace_seconds);
  }
};

struct CoordinatorMessageWriter {
  v1::ConnectResponse& to;

  void operator()(const FormMessage& from) const {
    to.mutable_form()->set_epoch(from.epoch);
    to.mutable_form()->set_segment(from.segment);
    to.mutable_form()->set_world_size(from.world_size);
    for (const std::string& address : from.collective_addresses) {
      to.mutable_form()->add_collective_addresses(address);
    }
  }
  void operator()(const CommandMessage& from) const {
    to.mutable_command()->set_epoch(from.epoch);
    to.mutable_command()->set_number(from.number);
    CommandToProto(from.command, *to.mutable_command());
  }
  void operator()(const AbortMessage& from) const {
    to.mutable_abort()->set_epoch(from.epoch);
    to.mutable_abort()->set_reason(Cut(from.reason));
  }
  void operator()(const PingMessage& from) const { to.mutable_ping()->set_id(from.id); }
  void operator()(const RefuseMessage& from) const {
    to.mutable_refuse()->set_reason(Cut(from.reason));
    to.mutable_refuse()->set_permanent(from.permanent);
  }
  void operator()(const ShutdownMessage&) const { to.mutable_shutdown(); }
};

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

v1::ConnectRequest ToProto(const RankMessage& message) {
  v1::ConnectRequest to;
  std::visit(RankMessageWriter{to}, message);
  return to;
}

v1::ConnectResponse ToProto(const CoordinatorMessage& message) {
  v1::ConnectResponse to;
  std::visit(CoordinatorMessageWriter{to}, message);
  return to;
}

absl::StatusOr<RankMessage> FromProto(const v1::ConnectRequest& message) {
  switch (message.message_case()) {
    case v1::ConnectRequest::kRegister:
      return RegisterFromProto(message.register_());
    case v1::ConnectRequest::kReady:
      return ReadyMessage{message.ready().epoch()};
    case v1::ConnectRequest::kDone:
      return DoneFromProto(message.done());
    case v1::ConnectRequest::kFault:
      LANCET_RETURN_IF_ERROR(CheckText("fault.reason", message.fault().reason(), kMaxReasonBytes));
      return FaultMessage{message.fault().epoch(), message.fault().reason()};
    case v1::ConnectRequest::kPong:
      return PongMessage{message.pong().id()};
    case v1::ConnectRequest::kLeaving:
      LANCET_RETURN_IF_ERROR(
          CheckRange("leaving.grace_seconds", message.leaving().grace_seconds(), 0.0, kMaxGraceSeconds));
      return LeavingMessage{message.leaving().grace_seconds()};
    case v1::ConnectRequest::MESSAGE_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError("message of a rank: empty or unknown to this version");
}

absl::StatusOr<CoordinatorMessage> FromProto(const v1::ConnectResponse& message) {
  switch (message.message_case()) {
    case v1::ConnectResponse::kForm:
      LANCET_RETURN_IF_ERROR(CheckText("form.segment", message.form().segment(), kMaxNameBytes));
      return FormFromProto(message.form());
    case v1::ConnectResponse::kCommand: {
      LANCET_ASSIGN_OR_RETURN(Command command, CommandFromProto(message.command()));
      return CommandMessage{message.command().epoch(), message.command().number(), std::move(command)};
    }
    case v1::ConnectResponse::kAbort:
      LANCET_RETURN_IF_ERROR(CheckText("abort.reason", message.abort().reason(), kMaxReasonBytes));
      return AbortMessage{message.abort().epoch(), message.abort().reason()};
    case v1::ConnectResponse::kPing:
      return PingMessage{message.ping().id()};
    case v1::ConnectResponse::kRefuse:
      LANCET_RETURN_IF_ERROR(CheckText("refuse.reason", message.refuse().reason(), kMaxReasonBytes));
      return RefuseMessage{message.refuse().reason(), message.refuse().permanent()};
    case v1::ConnectResponse::kShutdown:
      return ShutdownMessage{};
    case v1::ConnectResponse::MESSAGE_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError("message of the coordinator: empty or unknown to this version");
}

}  // namespace lancet
