// One rank's model on one device, as the engine drives it: the engine checks plans, keeps the order of work
// and decides what shares a pass; the runner owns weights and all memory of requests and computes. Everything
// that is done for a request stays on the device; only pictures and tokens come out.
//
// Not thread-safe. Every rank of a group makes the same calls in the same order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/plan_rows.h"
#include "common/request_plan.h"
#include "worker/collective/collective.h"
#include "worker/engine/engine_trace.h"

namespace lancet {

// What a device keeps of one admitted request: caches, latents, features, the answer so far. Destroying it
// frees all of that.
class ModelRequest {
 public:
  virtual ~ModelRequest() = default;
};

// What a rank has memory for.
struct ModelLimits {
  int64_t max_latents = 0;   // of one target or condition
  int64_t max_patches = 0;   // of one vision_image; 0 without a vision tower
  int64_t patch_px = 0;      // side of a patch of the tower, in pixels
  int64_t cell_px = 0;       // side of the square that becomes one of its tokens
  int64_t max_rows = 0;      // of one pass
  int64_t cache_tokens = 0;  // over all requests
};

// One request's part of a pass: kPrefill, kDenoise or kAnswer.
struct PassItem {
  ModelRequest* request = nullptr;
  Work work;
};

class ModelRunner {
 public:
  virtual ~ModelRunner() = default;

  // "cpu avx512_bf16, 1 thread".
  virtual std::string device() const = 0;
  // Floats of the largest all-reduce. Equal on every rank.
  virtual size_t collective_capacity() const = 0;
  virtual const ModelLimits& limits() const = 0;
  // Whether rows of PrefixBlock::answered come one in a pass, because text takes another way through the
  // device than answers do.
  virtual bool answered_row_by_row() const { return false; }

  // Starts an epoch: `collective` is used from now on and outlives the epoch. All requests are gone by then.
  virtual absl::Status Attach(Collective* collective) = 0;

  // Takes memory for a request; `plan` was checked against limits() and outlives the ModelRequest. The start
  // noise comes from the plan's seed, or from the trace; with a plan.snapshot the sampler goes on from there.
  virtual absl::StatusOr<std::unique_ptr<ModelRequest>> Admit(const RequestPlan& plan) = 0;

  // plan.vision_image to features.
  virtual absl::Status EncodeVision(ModelRequest& request) = 0;
  // plan.condition_image to latents, the same on every rank.
  virtual absl::Status EncodeLatents(ModelRequest& request) = 0;

  // One packed pass of the trunk and what follows it: each Linear runs once per expert over the rows of all
  // items; attention stays within a request. Items are of different requests, or consecutive parts of one
  // prefix block; together they have at most limits().max_rows rows (PassRows). A request's outcome does not
  // depend on the other items, to the bit. results[i] is the result of items[i]: `preview` on rank 0 when the
  // work asks for it, `token` on every rank, `snapshot` on rank 0 when the work asks for it.
  virtual absl::Status RunPass(absl::Span<const PassItem> items, absl::Span<WorkResult> results) = 0;

  // The finished latents as a picture; nothing on other ranks than 0.
  virtual absl::StatusOr<std::optional<RgbImage>> Decode(ModelRequest& request) = 0;

  // For tests and lancet-golden; null records nothing.
  virtual void set_trace(EngineTrace* trace) = 0;
};

}  // namespace lancet
