#include "coordinator/service/worker_service.h"

#include <grpcpp/grpcpp.h>
#include <grpcpp/impl/service_type.h>

#include <deque>
#include <mutex>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/digest.h"
#include "common/logging.h"
#include "common/rank_proof.h"
#include "lancet/v1/worker.grpc.pb.h"
#include "protos/convert.h"
#include "rpc/status.h"

namespace lancet {
namespace {

// Commands in flight are bounded by the session, pings by the heartbeat; a rank this far behind does not
// read.
constexpr size_t kMaxOutgoing = 256;

class GrpcRankLink final : public RankLink,
                           public grpc::ServerBidiReactor<v1::ConnectRequest, v1::ConnectResponse>,
                           public std::enable_shared_from_this<GrpcRankLink> {
 public:
  // `options` outlives the link.
  GrpcRankLink(const WorkerServiceOptions* options, grpc::CallbackServerContext* context)
      : options_(options), handler_(options->handler), context_(context) {}

  void Begin() {
    self_ = shared_from_this();
    if (!options_->secret.empty()) {
      nonce_ = absl::StrFormat("%016x%016x", options_->random(), options_->random());
      context_->AddInitialMetadata(kRankNonceKey, nonce_);
    }
    // At once: a rank that has a secret waits for the nonce, or to see that there is none.
    StartSendInitialMetadata();
    handler_->OnConnected(self_);
    StartRead(&incoming_);
  }

  void Send(CoordinatorMessage message) override {
    bool full = false;
    {
      const std::lock_guard<std::mutex> lock(mu_);
      if (closing_) return;
      full = outgoing_.size() >= kMaxOutgoing;
      if (!full) outgoing_.push_back(std::move(message));
    }
    if (full) {
      EndWith(absl::ResourceExhaustedError("it does not read"), /*flush=*/false);
    } else {
      Pump();
    }
  }

  void Close(bool flush) override { EndWith(absl::OkStatus(), flush); }

  void OnReadDone(bool ok) override {
    if (!ok) {
      EndWith(absl::UnavailableError("its stream ended"), /*flush=*/true);
      return;
    }
    if (!CheckProof()) {
      LogWarning("rank refused", {{"reason", "no proof of the shared secret"}});
      if (options_->on_refused != nullptr) options_->on_refused();
      EndWith(absl::UnauthenticatedError("no proof of the shared secret"), /*flush=*/true);
      return;
    }
    absl::StatusOr<RankMessage> message = FromProto(incoming_);
    if (!message.ok()) {
      EndWith(absl::InvalidArgumentError(absl::StrCat("bad message: ", message.status().message())),
              /*flush=*/false);
      return;
    }
    handler_->OnMessage(self_, *std::move(message));
    StartRead(&incoming_);
  }

  void OnWriteDone(bool ok) override {
    {
      const std::lock_guard<std::mutex> lock(mu_);
      writing_ = false;
    }
    if (!ok) EndWith(absl::UnavailableError("its stream broke"), /*flush=*/false);
    Pump();
  }

  void OnCancel() override { EndWith(absl::UnavailableError("its stream broke"), /*flush=*/false); }

  void OnDone() override {
    absl::Status reason;
    {
      const std::lock_guard<std::mutex> lock(mu_);
      context_ = nullptr;
      reason = reason_;
    }
    handler_->OnClosed(self_, std::move(reason));
    self_.reset();
  }

 private:
  // Whether the message may be heeded: the first one must be a Register with the proof for this stream's
  // nonce.
  bool CheckProof() {
    if (options_->secret.empty() || std::exchange(proven_, true)) return true;
    const v1::Register& claim = incoming_.register_();
    const std::string proof = RankProof(
        options_->secret, nonce_, {claim.group(), claim.rank(), claim.world_size(), claim.fingerprint()});
    return EqualInConstantTime(proof, claim.proof());
  }

  // The first reason counts; a later call can still turn a flush into a cut.
  void EndWith(absl::Status reason, bool flush) {
    {
      const std::lock_guard<std::mutex> lock(mu_);
      if (!closing_) reason_ = std::move(reason);
      closing_ = true;
      if (!flush) {
        outgoing_.clear();
        // Ends an outstanding write; harmless on a stream that is broken or finished.
        if (context_ != nullptr) context_->TryCancel();
      }
    }
    Pump();
  }

  // Starts the next write, or finishes. Whoever sets writing_ or finished_ is alone until gRPC answers.
  void Pump() {
    bool finish = false;
    grpc::Status status;
    {
      const std::lock_guard<std::mutex> lock(mu_);
      if (writing_ || finished_) return;
      if (!outgoing_.empty()) {
        writing_ = true;
        write_ = ToProto(outgoing_.front());
        outgoing_.pop_front();
      } else if (closing_) {
        finished_ = true;
        finish = true;
        // Other reasons are told by messages, or nobody hears them.
        if (absl::IsUnauthenticated(reason_)) status = ToGrpcStatus(reason_);
      } else {
        return;
      }
    }
    if (finish) {
      Finish(status);
    } else {
      StartWrite(&write_);
    }
  }

  const WorkerServiceOptions* const options_;
  RankLinkHandler* const handler_;
  std::string nonce_;            // constant once the stream has begun
  bool proven_ = false;          // belongs to the outstanding read
  v1::ConnectRequest incoming_;  // likewise
  std::shared_ptr<GrpcRankLink> self_;
  std::mutex mu_;  // guards everything below
  grpc::CallbackServerContext* context_;
  std::deque<CoordinatorMessage> outgoing_;
  v1::ConnectResponse write_;  // belongs to the outstanding write while writing_
  bool writing_ = false;
  bool closing_ = false;
  bool finished_ = false;
  absl::Status reason_;
};

class WorkerService final : public v1::WorkerService::CallbackService {
 public:
  explicit WorkerService(WorkerServiceOptions options) : options_(std::move(options)) {}

  grpc::ServerBidiReactor<v1::ConnectRequest, v1::ConnectResponse>* Connect(
      grpc::CallbackServerContext* context) override {
    auto link = std::make_shared<GrpcRankLink>(&options_, context);
    link->Begin();
    return link.get();
  }

 private:
  const WorkerServiceOptions options_;
};

}  // namespace

std::unique_ptr<grpc::Service> MakeWorkerService(WorkerServiceOptions options) {
  return std::make_unique<WorkerService>(std::move(options));
}

}  // namespace lancet
