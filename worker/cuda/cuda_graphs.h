// Work that is enqueued again and again, as CUDA graphs: captured once, then launched in one call.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <list>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "kernels/cuda/cuda_context.h"
#include "kernels/cuda/cuda_handle.h"

namespace lancet {

// The key says everything that decides which launches the work consists of, with which arguments: shapes, and
// the addresses that launches get by value. Not thread-safe.
class CudaGraphs {
 public:
  using Key = std::vector<int64_t>;

  // Keeps at most `limit` graphs, those used last. `timeout` bounds the wait for one that is dropped.
  CudaGraphs(const CudaContext& ctx, size_t limit, absl::Duration timeout)
      : ctx_(ctx), limit_(limit), timeout_(timeout) {}

  // Enqueues the work of `key` on the context's stream. The first time, and where a capture fails, `enqueue`
  // does that: it may make plans and take memory. The second time its launches are captured; from then on it
  // is not called. Work on other streams must begin and end with the context's stream.
  absl::Status Run(const Key& key, absl::FunctionRef<absl::Status()> enqueue);

  int64_t graphs() const;
  int64_t launches() const { return launches_; }

 private:
  struct Entry {
    Key key;
    CudaHandle<cudaGraphExec_t, cudaGraphExecDestroy> graph;
    bool refused = false;
  };
  Entry* Find(const Key& key);
  absl::Status Capture(absl::FunctionRef<absl::Status()> enqueue, Entry& entry);
  absl::Status MakeRoom();

  const CudaContext& ctx_;
  const size_t limit_;
  const absl::Duration timeout_;
  std::list<Entry> entries_;  // last used first; those without a graph were seen once, or refused
  int64_t launches_ = 0;
};

}  // namespace lancet
