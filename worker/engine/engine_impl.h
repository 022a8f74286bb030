// The engine behind worker/engine/engine.h: checks what it is told, keeps the order of work, and decides what
// shares a pass. The computing is a ModelRunner's.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/model_config.h"
#include "worker/engine/engine.h"
#include "worker/engine/model_runner.h"
#include "worker/engine/request_run.h"

namespace lancet {

class EngineImpl final : public Engine {
 public:
  EngineImpl(EngineOptions options, ModelConfig config, std::unique_ptr<ModelRunner> runner);

  size_t collective_capacity() const override { return runner_->collective_capacity(); }
  std::string device() const override { return runner_->device(); }
  ModelLimits limits() const override { return runner_->limits(); }
  absl::Status Attach(Collective* collective) override;
  absl::Status WarmUp() override;
  absl::Status Admit(const RequestPlan& plan) override;
  absl::StatusOr<std::vector<WorkResult>> Iterate(const std::vector<Work>& work) override;
  absl::Status Release(uint64_t request_id) override;
  void set_trace(EngineTrace* trace) override { runner_->set_trace(trace); }

 private:
  // Work of one pass: indices into the iteration's work.
  struct Pending {
    std::vector<size_t> items;
    int64_t rows = 0;
  };

  absl::StatusOr<RequestRun*> Find(uint64_t request_id);
  // Work outside the trunk.
  absl::Status Execute(RequestRun& run, const Work& work, WorkResult& result);
  absl::Status RunPass(const std::vector<Work>& work, Pending& pending, std::vector<WorkResult>& results);
  // Longer text is cut so that a pass is not larger than limits().max_rows; an answer's rows where they come
  // one by one.
  absl::Status RunLongPrefill(RequestRun& run, const Work& work, WorkResult& result);

  const EngineOptions options_;
  const ModelConfig config_;
  const std::unique_ptr<ModelRunner> runner_;

  bool attached_ = false;
  int64_t cache_tokens_ = 0;  // of all admitted requests
  std::map<uint64_t, std::unique_ptr<RequestRun>> requests_;
};

}  // namespace lancet
