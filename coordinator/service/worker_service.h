// lancet.v1.WorkerService: the streams of ranks as RankLinks. Each is a callback reactor that copies, hands
// over and returns.
#pragma once

#include <memory>

#include "coordinator/group/rank_link.h"

namespace grpc {
class Service;
}

namespace lancet {

// `handler` outlives the service.
std::unique_ptr<grpc::Service> MakeWorkerService(RankLinkHandler* handler);

}  // namespace lancet
