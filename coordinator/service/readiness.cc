#include "coordinator/service/readiness.h"

#include <grpcpp/health_check_service_interface.h>

namespace lancet {

void Readiness::Attach(grpc::HealthCheckServiceInterface* health) {
  const std::lock_guard<std::mutex> lock(mu_);
  health_ = health;
  Tell();
}

void Readiness::Detach() {
  const std::lock_guard<std::mutex> lock(mu_);
  health_ = nullptr;
}

void Readiness::Set(bool serving, bool serving_vision) {
  const std::lock_guard<std::mutex> lock(mu_);
  serving_ = serving;
  serving_vision_ = serving_vision;
  Tell();
}

void Readiness::SetDraining() {
  const std::lock_guard<std::mutex> lock(mu_);
  draining_ = true;
  Tell();
}

bool Readiness::draining() const {
  const std::lock_guard<std::mutex> lock(mu_);
  return draining_;
}

bool Readiness::serving() const {
  const std::lock_guard<std::mutex> lock(mu_);
  return serving_ && !draining_;
}

bool Readiness::serving_vision() const {
  const std::lock_guard<std::mutex> lock(mu_);
  return serving_vision_ && !draining_;
}

void Readiness::Tell() {
  // Under the lock, so that two changes cannot arrive in the wrong order; the health service only notes the
  // state.
  if (health_ == nullptr) return;
  health_->SetServingStatus("", serving_ && !draining_);
  health_->SetServingStatus("lancet.v1.ImageService", serving_ && !draining_);
  health_->SetServingStatus("lancet.v1.TextService", serving_vision_ && !draining_);
}

}  // namespace lancet
