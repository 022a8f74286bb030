#include "coordinator/dispatch/image_encoder.h"

#include <string>
#include <utility>

#include "absl/time/clock.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "coordinator/request/image_codec.h"
#include "coordinator/request/image_scale.h"

namespace lancet {
namespace {

absl::StatusOr<EncodedImage> Encode(const RgbImage& image, ImageFormat format) {
  EncodedImage encoded{.format = format, .width = image.width, .height = image.height, .data = {}};
  LANCET_ASSIGN_OR_RETURN(encoded.data, EncodeImage(image, format));
  return encoded;
}

absl::StatusOr<EncodedImage> EncodeFitted(const RgbImage& image, const PreviewPlan& plan) {
  LANCET_ASSIGN_OR_RETURN(const RgbImage fitted, FitImage(image, plan.max_side));
  return Encode(fitted, plan.format);
}

void EncodeNewest(PreviewSlot& slot, const PreviewPlan& plan, EventSink& sink) {
  std::optional<RgbImage> image;
  int32_t step = 0;
  {
    const std::lock_guard<std::mutex> lock(slot.mu);
    slot.scheduled = false;
    image.swap(slot.newest);
    step = slot.step;
  }
  if (!image.has_value() || sink.cancelled()) return;
  absl::StatusOr<EncodedImage> encoded = EncodeFitted(*image, plan);
  if (encoded.ok()) {
    sink.Push(PreviewEvent{step, *std::move(encoded)});
  } else {
    // A missing preview does not fail the request.
    LogError("preview not encoded", {{"step", step}, {"reason", encoded.status().message()}});
  }
}

}  // namespace

void PooledImageEncoder::EncodePreview(const std::shared_ptr<PreviewSlot>& slot, int32_t step, RgbImage image,
                                       const PreviewPlan& plan, const std::shared_ptr<EventSink>& sink) {
  {
    const std::lock_guard<std::mutex> lock(slot->mu);
    slot->newest = std::move(image);
    slot->step = step;
    if (slot->scheduled) return;
    slot->scheduled = true;
  }
  if (pool_->TryPost([slot, plan, sink] { EncodeNewest(*slot, plan, *sink); })) return;
  const std::lock_guard<std::mutex> lock(slot->mu);
  slot->scheduled = false;
  slot->newest.reset();
}

void PooledImageEncoder::EncodeResult(RgbImage image, ImageFormat format, ResultCallback done) {
  // A std::function must be copyable, so the picture is shared between copies of the task.
  auto shared = std::make_shared<const RgbImage>(std::move(image));
  auto callback = std::make_shared<ResultCallback>(std::move(done));
  const bool posted = pool_->Post([shared, format, callback] {
    const absl::Time start = absl::Now();
    absl::StatusOr<EncodedImage> encoded = Encode(*shared, format);
    (*callback)(std::move(encoded), absl::Now() - start);
  });
  if (!posted) (*callback)(absl::UnavailableError("the server stops"), absl::ZeroDuration());
}

}  // namespace lancet
