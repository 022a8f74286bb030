// The engine of one rank: weights, requests and the packed passes over them. A library without RPC.
//
// Not thread-safe: one thread calls Attach, Admit, Iterate and Release in the order in which the coordinator
// numbered the commands; every rank of the group gets the same calls. Weights stay loaded over any number of
// Attach calls.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/checkpoint.h"
#include "common/request_plan.h"
#include "worker/collective/collective.h"
#include "worker/collective/device_transport.h"
#include "worker/engine/model_runner.h"
#include "worker/loader/linear_policy.h"

namespace lancet {

// kAuto: CUDA where the build, the machine and the options allow it, else the CPU.
enum class DeviceKind { kCpu, kCuda, kAuto };

struct EngineOptions {
  DeviceKind device = DeviceKind::kCpu;
  int device_ordinal = -1;  // of a CUDA device; -1: rank modulo the devices there are
  DeviceTransport device_transport = DeviceTransport::kAuto;  // between the devices of a group
  bool f32_partials = false;    // of many rows, between the devices of a group; else bf16
  LinearPolicyOptions linears;  // in which arithmetic NVFP4 Linears are multiplied
  bool cuda_graphs = true;      // replay captured passes; false launches every kernel anew
  int rank = 0;
  int world_size = 1;
  int threads = 1;             // compute threads of this rank
  std::vector<int> cpus = {};  // compute thread t runs on processor cpus[t] alone; empty: anywhere
  int64_t max_latents =
      4096;               // largest picture, in latents (pixels / 256): scratch for it is allocated at load
  int max_requests = 16;  // requests admitted at the same time
  int64_t max_patches = 2304;  // largest picture for the vision tower, in patches
  // Memory for keys and values of all requests, at most; taken as requests need it.
  int64_t cache_bytes = int64_t{2} << 30;
  absl::Duration collective_timeout = absl::Minutes(10);  // bounds every wait for a peer
};

class EngineTrace;

class Engine {
 public:
  virtual ~Engine() = default;

  // Loads this rank's shard of every weight. `checkpoint` was validated and may go away afterwards.
  static absl::StatusOr<std::unique_ptr<Engine>> Load(const Checkpoint& checkpoint,
                                                      const EngineOptions& options);

  // Floats that the largest all-reduce of this engine moves: the capacity its Collective needs. Equal on
  // every rank.
  virtual size_t collective_capacity() const = 0;
  // "cpu avx512_bf16, 1 thread".
  virtual std::string device() const = 0;
  // What this rank has memory for.
  virtual ModelLimits limits() const = 0;

  // Starts an epoch: drops every request and uses `collective` (rank and world size as in the options) from
  // now on. It must outlive the epoch.
  virtual absl::Status Attach(Collective* collective) = 0;
  // Runs a small made-up request through every stage, so that the first real one finds warm caches.
  virtual absl::Status WarmUp() = 0;

  // AlreadyExists, InvalidArgument (naming the field) or ResourceExhausted; a refused request leaves no
  // trace.
  virtual absl::Status Admit(const RequestPlan& plan) = 0;
  // Executes the work, that of one request in the given order; work of several requests shares passes of the
  // trunk, and none changes another's bytes. One result per work. InvalidArgument for unknown requests or
  // work out of order. A failed collective breaks the epoch: Attach again. Pictures are in the results of
  // rank 0 only.
  virtual absl::StatusOr<std::vector<WorkResult>> Iterate(const std::vector<Work>& work) = 0;
  // Frees the request; NotFound if there is none.
  virtual absl::Status Release(uint64_t request_id) = 0;

  // For tests and lancet-golden: where intermediate values go; null (the default) records nothing.
  virtual void set_trace(EngineTrace* trace) = 0;
};

}  // namespace lancet
