// lancet.v1.WorkerService: the streams of ranks as RankLinks. Each is a callback reactor that copies, hands
// over and returns.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "coordinator/group/rank_link.h"

namespace grpc {
class Service;
}

namespace lancet {

struct WorkerServiceOptions {
  RankLinkHandler* handler = nullptr;  // outlives the service
  // What ranks prove to know before anything they say is heeded (common/rank_proof.h); empty: nothing.
  std::string secret;
  std::function<uint64_t()> random;  // for nonces; unpredictable and thread-safe
  std::function<void()> on_refused;  // of a rank without a valid proof; may be null
};

std::unique_ptr<grpc::Service> MakeWorkerService(WorkerServiceOptions options);

}  // namespace lancet
