#include "protos/convert.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/status_macros.h"
#include "protos/convert_values.h"

namespace lancet {
namespace {

using Command = decltype(CommandMessage::command);

absl::Status CheckText(absl::string_view field, const std::string& text, size_t limit) {
  if (text.size() <= limit) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(field, ": ", text.size(), " bytes, the limit is ", limit));
}

std::string Cut(const std::string& text) { return text.substr(0, kMaxReasonBytes); }

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
