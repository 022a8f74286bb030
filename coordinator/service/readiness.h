// grpc.health.v1 told the truth: SERVING only while a group can take work, for "" and
// "lancet.v1.ImageService"; for "lancet.v1.TextService" only while one with a vision tower can.
#pragma once

#include <mutex>

namespace grpc {
class HealthCheckServiceInterface;
}

namespace lancet {

// Thread-safe.
class Readiness {
 public:
  // The health service of the public server, which outlives the attachment. It is told what is so now.
  void Attach(grpc::HealthCheckServiceInterface* health);
  void Detach();
  void Set(bool serving, bool serving_vision);
  // From now on NOT_SERVING, whatever Set says.
  void SetDraining();
  bool draining() const;
  // As the health service says: of "" and ImageService, and of TextService.
  bool serving() const;
  bool serving_vision() const;

 private:
  void Tell();

  mutable std::mutex mu_;  // guards everything below
  grpc::HealthCheckServiceInterface* health_ = nullptr;
  bool serving_ = false;
  bool serving_vision_ = false;
  bool draining_ = false;
};

}  // namespace lancet
