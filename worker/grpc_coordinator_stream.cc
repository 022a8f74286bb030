#include "worker/grpc_coordinator_stream.h"

#include <grpcpp/grpcpp.h>

#include <deque>
#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "common/logging.h"
#include "common/rank_proof.h"
#include "common/status_macros.h"
#include "lancet/v1/worker.grpc.pb.h"
#include "protos/convert.h"

namespace lancet {
namespace {

// Two iterations in flight, a few admissions and releases, and pings: a coordinator so far behind is not
// reading.
constexpr size_t kMaxQueuedMessages = 256;

class GrpcCoordinatorStream final : public CoordinatorStream,
                                    private grpc::ClientBidiReactor<v1::ConnectRequest, v1::ConnectResponse> {
 public:
  // `stub` and `secret` outlive the stream.
  GrpcCoordinatorStream(v1::WorkerService::Stub* stub, const std::string* secret,
                        CoordinatorStreamHandler* handler)
      : stub_(stub), secret_(secret), handler_(handler), awaits_nonce_(!secret->empty()) {}

  ~GrpcCoordinatorStream() override { Close(absl::ZeroDuration()); }

  void Start() override {
    {
      const std::lock_guard<std::mutex> lock(mu_);
      state_ = State::kOpen;
    }
    stub_->async()->Connect(&context_, this);
    // Writes begin outside of reactions; the hold keeps the call from ending under them.
    AddHold();
    StartRead(&incoming_);
    StartCall();
  }

  absl::Status Send(RankMessage message) override {
    v1::ConnectRequest request = ToProto(message);
    {
      const std::lock_guard<std::mutex> lock(mu_);
      if (state_ != State::kOpen) return absl::UnavailableError("the stream to the coordinator is not open");
      if (queue_.size() < kMaxQueuedMessages) {
        queue_.push_back(std::move(request));
      } else {
        state_ = State::kLeaving;
        context_.TryCancel();
        return absl::ResourceExhaustedError(
            absl::StrCat("the coordinator left ", queue_.size(), " messages unread"));
      }
    }
    WriteNext();
    return absl::OkStatus();
  }

  void Close(absl::Duration grace) override {
    {
      const std::lock_guard<std::mutex> lock(mu_);
      if (state_ == State::kNew) return;
      if (state_ == State::kOpen) state_ = State::kLeaving;
    }
    if (grace > absl::ZeroDuration()) {
      WriteNext();
      done_.WaitForNotificationWithTimeout(grace);
    }
    context_.TryCancel();
    // gRPC ends a cancelled call without the peer's help.
    done_.WaitForNotification();
  }

 private:
  enum class State {
    kNew,
    kOpen,
    kLeaving,  // nothing more may be queued; a farewell follows the last queued message
    kBroken,   // the call is over: nothing more is written
  };

  // Begins the write of the oldest queued message, or the farewell, unless a write is under way.
  void WriteNext() {
    bool farewell = false;
    {
      const std::lock_guard<std::mutex> lock(mu_);
      if (writing_ || said_farewell_ || state_ == State::kBroken || awaits_nonce_) return;
      if (queue_.empty()) {
        if (state_ != State::kLeaving) return;
        farewell = said_farewell_ = true;
      } else {
        outgoing_ = std::move(queue_.front());
        queue_.pop_front();
        if (outgoing_.has_register_() && !nonce_.empty()) Prove(*outgoing_.mutable_register_());
      }
      writing_ = true;
    }
    if (farewell) {
      StartWritesDone();
    } else {
      StartWrite(&outgoing_);
    }
  }

  void Prove(v1::Register& claim) const {
    claim.set_proof(
        RankProof(*secret_, nonce_, {claim.group(), claim.rank(), claim.world_size(), claim.fingerprint()}));
  }

  void OnWriteFinished() {
    bool last = false;
    {
      const std::lock_guard<std::mutex> lock(mu_);
      writing_ = false;
      last = state_ == State::kBroken;
    }
    if (last) {
      RemoveHold();
    } else {
      WriteNext();
    }
  }

  // The stream begins with the coordinator's nonce, if it has a secret; Register has waited for it.
  void OnReadInitialMetadataDone(bool ok) override {
    if (secret_->empty()) return;
    std::string nonce;
    if (ok) {
      const auto& metadata = context_.GetServerInitialMetadata();
      const auto found = metadata.find(kRankNonceKey);
      if (found != metadata.end()) nonce.assign(found->second.data(), found->second.size());
    }
    {
      const std::lock_guard<std::mutex> lock(mu_);
      awaits_nonce_ = false;
      nonce_ = std::move(nonce);
    }
    WriteNext();
  }

  void OnWriteDone(bool /*ok*/) override { OnWriteFinished(); }
  void OnWritesDoneDone(bool /*ok*/) override { OnWriteFinished(); }

  void OnReadDone(bool ok) override {
    if (ok) {
      absl::StatusOr<CoordinatorMessage> message = FromProto(incoming_);
      if (message.ok()) {
        handler_->OnMessage(*std::move(message));
        StartRead(&incoming_);
        return;
      }
      // Both ends are of one version; a message that makes no sense ends the stream.
      LogError("bad message from the coordinator", {{"reason", message.status().message()}});
      context_.TryCancel();
    }
    bool idle = false;
    {
      const std::lock_guard<std::mutex> lock(mu_);
      state_ = State::kBroken;
      idle = !writing_;
    }
    if (idle) RemoveHold();
  }

  void OnDone(const grpc::Status& status) override {
    handler_->OnClosed(status.ok() ? absl::OkStatus()
                                   : absl::Status(static_cast<absl::StatusCode>(status.error_code()),
                                                  status.error_message()));
    done_.Notify();
  }

  v1::WorkerService::Stub* const stub_;
  const std::string* const secret_;
  CoordinatorStreamHandler* const handler_;
  grpc::ClientContext context_;
  v1::ConnectResponse incoming_;  // of the one read under way
  v1::ConnectRequest outgoing_;   // of the one write under way
  absl::Notification done_;

  std::mutex mu_;  // guards all below
  State state_ = State::kNew;
  bool writing_ = false;
  bool said_farewell_ = false;
  bool awaits_nonce_;
  std::string nonce_;
  std::deque<v1::ConnectRequest> queue_;
};

class GrpcConnector final : public CoordinatorConnector {
 public:
  GrpcConnector(const GrpcConnectorOptions& options,
                const std::shared_ptr<grpc::ChannelCredentials>& credentials)
      : secret_(options.secret) {
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(kMaxWorkerMessageBytes);
    // The session paces attempts; gRPC's own pauses between them (up to 2 minutes) would only add to that.
    arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
    arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
    // Also how long one attempt to connect may take.
    arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 5000);
    if (!options.server_name.empty()) arguments.SetSslTargetNameOverride(options.server_name);
    stub_ = v1::WorkerService::NewStub(grpc::CreateCustomChannel(options.address, credentials, arguments));
  }

  absl::StatusOr<std::unique_ptr<CoordinatorStream>> Connect(CoordinatorStreamHandler* handler) override {
    return std::make_unique<GrpcCoordinatorStream>(stub_.get(), &secret_, handler);
  }

 private:
  const std::string secret_;
  std::unique_ptr<v1::WorkerService::Stub> stub_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<CoordinatorConnector>> MakeGrpcConnector(const GrpcConnectorOptions& options) {
  std::shared_ptr<grpc::ChannelCredentials> credentials = grpc::InsecureChannelCredentials();
  if (options.tls) {
    LANCET_ASSIGN_OR_RETURN(credentials, MakeTlsChannelCredentials(options.tls_files));
  }
  return std::make_unique<GrpcConnector>(options, credentials);
}

}  // namespace lancet
