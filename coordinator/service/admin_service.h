// lancet.v1.AdminService.
#pragma once

#include <memory>

#include "absl/time/time.h"
#include "coordinator/dispatch/recent_errors.h"
#include "coordinator/service/image_service.h"

namespace grpc {
class Service;
}

namespace lancet {

// Pointers of `options` outlive the service; `options.recent_errors` may be null. `start` is when the server
// began, on the clock of the options.
std::unique_ptr<grpc::Service> MakeAdminService(const ServiceOptions& options, absl::Time start);

}  // namespace lancet
