// lancet.v1.ImageService and lancet.v1.TextService.
#pragma once

#include <functional>
#include <memory>

#include "common/clock.h"
#include "coordinator/access/access_control.h"
#include "coordinator/dispatch/dispatcher.h"
#include "coordinator/dispatch/recent_errors.h"
#include "coordinator/dispatch/service_observer.h"
#include "coordinator/dispatch/task_runner.h"
#include "coordinator/service/readiness.h"
#include "coordinator/service/request_intake.h"

namespace grpc {
class Service;
}

namespace lancet {

// Pointers outlive the services.
struct ServiceOptions {
  IntakeOptions intake;  // its `random` makes request ids, too
  Dispatcher* dispatcher = nullptr;
  TaskRunner* admission_pool = nullptr;
  TaskRunner* image_pool = nullptr;  // decodes pictures; what does not fit its queue is refused
  const Readiness* readiness = nullptr;
  ServiceObserver* observer = nullptr;  // may be null
  AccessControl* access = nullptr;
  const RecentErrors* recent_errors = nullptr;  // for AdminService; may be null
  const Clock* clock = nullptr;
};

std::unique_ptr<grpc::Service> MakeImageService(const ServiceOptions& options);
std::unique_ptr<grpc::Service> MakeTextService(const ServiceOptions& options);

}  // namespace lancet
