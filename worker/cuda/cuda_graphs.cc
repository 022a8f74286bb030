#include "worker/cuda/cuda_graphs.h"

#include <algorithm>
#include <string>

#include "common/logging.h"
#include "common/status_macros.h"
#include "kernels/cuda/cuda_status.h"

namespace lancet {

CudaGraphs::Entry* CudaGraphs::Find(const Key& key) {
  const auto found =
      std::find_if(entries_.begin(), entries_.end(), [&](const Entry& entry) { return entry.key == key; });
  if (found == entries_.end()) return nullptr;
  entries_.splice(entries_.begin(), entries_, found);
  return &entries_.front();
}

int64_t CudaGraphs::graphs() const {
  return std::count_if(entries_.begin(), entries_.end(),
                       [](const Entry& entry) { return entry.graph.get() != nullptr; });
}

absl::Status CudaGraphs::MakeRoom() {
  if (entries_.size() < limit_) return absl::OkStatus();
  // A graph may still be running.
  if (entries_.back().graph.get() != nullptr) LANCET_RETURN_IF_ERROR(ctx_.Wait(timeout_));
  entries_.pop_back();
  return absl::OkStatus();
}

absl::Status CudaGraphs::Capture(absl::FunctionRef<absl::Status()> enqueue, Entry& entry) {
  LANCET_CUDA_RETURN_IF_ERROR(cudaStreamBeginCapture(ctx_.stream(), cudaStreamCaptureModeThreadLocal));
  const absl::Status status = enqueue();
  cudaGraph_t captured = nullptr;
  const cudaError_t end = cudaStreamEndCapture(ctx_.stream(), &captured);
  const CudaHandle<cudaGraph_t, cudaGraphDestroy> owned(captured);
  LANCET_RETURN_IF_ERROR(status);
  LANCET_CUDA_RETURN_IF_ERROR(end);
  return CudaStatus(cudaGraphInstantiate(entry.graph.receive(), captured, 0), "cudaGraphInstantiate");
}

absl::Status CudaGraphs::Run(const Key& key, absl::FunctionRef<absl::Status()> enqueue) {
  Entry* entry = Find(key);
  if (entry == nullptr) {
    LANCET_RETURN_IF_ERROR(MakeRoom());
    entries_.emplace_front().key = key;
    return enqueue();
  }
  if (entry->refused) return enqueue();
  if (entry->graph.get() == nullptr) {
    if (const absl::Status status = Capture(enqueue, *entry); !status.ok()) {
      cudaGetLastError();  // or a later launch would report it
      LogWarning("a pass is not captured as a CUDA graph", {{"reason", std::string(status.message())}});
      entry->refused = true;
      return enqueue();
    }
  }
  ++launches_;
  return CudaStatus(cudaGraphLaunch(entry->graph.get(), ctx_.stream()), "cudaGraphLaunch");
}

}  // namespace lancet
