// Turns pictures into files on threads of its own, so that neither the event loop nor gRPC's threads wait for
// a codec.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <optional>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/rgb_image.h"
#include "coordinator/dispatch/event_stream.h"
#include "coordinator/dispatch/events.h"
#include "coordinator/dispatch/task_runner.h"
#include "coordinator/request/admission.h"

namespace lancet {

// The previews of one request: the newest one that is not encoded yet.
struct PreviewSlot {
  std::mutex mu;
  bool scheduled = false;  // a task will take what is here
  int32_t step = 0;
  std::optional<RgbImage> newest;
};

// Thread-safe.
class ImageEncoder {
 public:
  virtual ~ImageEncoder() = default;

  // Scales and encodes a preview and pushes it to `sink`. One that still waits in `slot` is replaced;
  // dropped when the encoder is overloaded.
  virtual void EncodePreview(const std::shared_ptr<PreviewSlot>& slot, int32_t step, RgbImage image,
                             const PreviewPlan& plan, const std::shared_ptr<EventSink>& sink) = 0;

  // Calls `done` with the file and the time that encoding took, from a thread of the encoder. Never dropped:
  // the callers are bounded by the number of calls.
  using ResultCallback = std::function<void(absl::StatusOr<EncodedImage> image, absl::Duration took)>;
  virtual void EncodeResult(RgbImage image, ImageFormat format, ResultCallback done) = 0;
};

// On a TaskRunner.
class PooledImageEncoder final : public ImageEncoder {
 public:
  // `pool` outlives the encoder.
  explicit PooledImageEncoder(TaskRunner* pool) : pool_(pool) {}

  void EncodePreview(const std::shared_ptr<PreviewSlot>& slot, int32_t step, RgbImage image,
                     const PreviewPlan& plan, const std::shared_ptr<EventSink>& sink) override;
  void EncodeResult(RgbImage image, ImageFormat format, ResultCallback done) override;

 private:
  TaskRunner* const pool_;
};

}  // namespace lancet
