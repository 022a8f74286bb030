#include "protos/convert.h"

#include <cmath>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/status_macros.h"

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

v1::WorkKind KindToProto(WorkKind kind) {
  switch (kind) {
    case WorkKind::kPrefill:
      return v1::WORK_KIND_PREFILL;
    case WorkKind::kDenoise:
      return v1::WORK_KIND_DENOISE;
    case WorkKind::kDecode:
      return v1::WORK_KIND_DECODE;
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

absl::StatusOr<PrefixBlock> PrefixFromProto(const std::string& field, const v1::PrefixBlock& from) {
  LANCET_RETURN_IF_ERROR(
      CheckRange(absl::StrCat(field, ": tokens"), from.token_ids_size(), 1, kMaxBlockTokens));
  PrefixBlock to;
  to.token_ids.assign(from.token_ids().begin(), from.token_ids().end());
  LANCET_ASSIGN_OR_RETURN(to.positions, PositionsFromProto(absl::StrCat(field, ".positions"),
                                                           from.positions(), from.token_ids_size()));
  to.conditional = from.conditional();
  to.unconditional = from.unconditional();
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
  return SamplerParams{from.num_steps(), from.timestep_shift(), from.guidance_scale(), from.guidance_start(),
                       from.guidance_end()};
}

absl::StatusOr<Work> WorkFromProto(const v1::Work& from) {
  Work to;
  to.request_id = from.request_id();
  LANCET_ASSIGN_OR_RETURN(to.kind, KindFromProto("work.kind", from.kind()));
  LANCET_RETURN_IF_ERROR(CheckRange("work.index", from.index(), 0, kMaxPlanSteps));
  to.index = from.index();
  LANCET_ASSIGN_OR_RETURN(to.preview, PreviewFromProto("work.preview", from.preview()));
  return to;
}

absl::StatusOr<WorkResult> ResultFromProto(const v1::WorkResult& from) {
  WorkResult to;
  to.request_id = from.request_id();
  LANCET_ASSIGN_OR_RETURN(to.kind, KindFromProto("result.kind", from.kind()));
  LANCET_RETURN_IF_ERROR(CheckRange("result.index", from.index(), 0, kMaxPlanSteps));
  to.index = from.index();
  if (from.has_preview()) {
    LANCET_ASSIGN_OR_RETURN(to.preview, ImageFromProto("result.preview", from.preview()));
  }
  if (from.has_image()) {
    LANCET_ASSIGN_OR_RETURN(to.image, ImageFromProto("result.image", from.image()));
  }
  LANCET_RETURN_IF_ERROR(CheckRange("result.seconds", from.seconds(), 0.0, 1e9));
  to.seconds = from.seconds();
  return to;
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
                                    {"register.host", &from.host()}}) {
    LANCET_RETURN_IF_ERROR(CheckText(field, *text, kMaxNameBytes));
  }
  return RegisterMessage{.group = from.group(),
                         .rank = from.rank(),
                         .world_size = from.world_size(),
                         .fingerprint = from.fingerprint(),
                         .device = from.device(),
                         .host = from.host(),
                         .max_latents = from.max_latents(),
                         .pid = from.pid()};
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
    message.set_max_latents(from.max_latents);
    message.set_pid(from.pid);
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
      r.set_seconds(result.seconds);
    }
  }
  void operator()(const FaultMessage& from) const {
    to.mutable_fault()->set_epoch(from.epoch);
    to.mutable_fault()->set_reason(Cut(from.reason));
  }
  void operator()(const PongMessage& from) const { to.mutable_pong()->set_id(from.id); }
};

struct CoordinatorMessageWriter {
  v1::ConnectResponse& to;

  void operator()(const FormMessage& from) const {
    to.mutable_form()->set_epoch(from.epoch);
    to.mutable_form()->set_segment(from.segment);
    to.mutable_form()->set_world_size(from.world_size);
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
  }
  v1::TargetBlock& target = *to.mutable_target();
  target.set_latent_height(plan.target.latent_height);
  target.set_latent_width(plan.target.latent_width);
  target.set_start_token_id(plan.target.start_token_id);
  target.set_end_token_id(plan.target.end_token_id);
  PositionsToProto(plan.target.conditional, *target.mutable_conditional());
  PositionsToProto(plan.target.unconditional, *target.mutable_unconditional());
  v1::SamplerParams& sampler = *to.mutable_sampler();
  sampler.set_num_steps(plan.sampler.num_steps);
  sampler.set_timestep_shift(plan.sampler.timestep_shift);
  sampler.set_guidance_scale(plan.sampler.guidance_scale);
  sampler.set_guidance_start(plan.sampler.guidance_start);
  sampler.set_guidance_end(plan.sampler.guidance_end);
  to.set_seed(plan.seed);
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
  LANCET_ASSIGN_OR_RETURN(to.target, TargetFromProto(plan.target()));
  LANCET_ASSIGN_OR_RETURN(to.sampler, SamplerFromProto(plan.sampler()));
  to.seed = plan.seed();
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
    case v1::ConnectRequest::MESSAGE_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError("message of a rank: empty or unknown to this version");
}

absl::StatusOr<CoordinatorMessage> FromProto(const v1::ConnectResponse& message) {
  switch (message.message_case()) {
    case v1::ConnectResponse::kForm:
      LANCET_RETURN_IF_ERROR(CheckText("form.segment", message.form().segment(), kMaxNameBytes));
      return FormMessage{message.form().epoch(), message.form().segment(), message.form().world_size()};
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
