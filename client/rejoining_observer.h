// Between the streams of one request and its observer: a request with an idempotency key whose stream broke
// is asked for again, and the new stream begins with what was heard before. The observer hears everything
// once.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "client/generation_client.h"

namespace lancet {

class RejoiningObserver final : public GenerationObserver {
 public:
  // `observer` outlives this.
  explicit RejoiningObserver(GenerationObserver* observer) : observer_(observer) {}

  // A new stream begins.
  void OnStream() { position_ = 0; }

  void OnQueued(const QueuedInfo& queued) override {
    if (!started_) observer_->OnQueued(queued);
  }
  void OnStarted(const StartedInfo& started) override {
    if (started_) return;
    started_ = true;
    observer_->OnStarted(started);
  }
  void OnProgress(const ProgressInfo& progress) override { observer_->OnProgress(progress); }
  void OnPreview(const PreviewInfo& preview) override {
    if (preview.step <= previewed_) return;
    previewed_ = preview.step;
    observer_->OnPreview(preview);
  }
  void OnDelta(absl::string_view text) override {
    const size_t known = std::min(text.size(), heard_ - position_);
    position_ += text.size();
    heard_ = std::max(heard_, position_);
    if (known < text.size()) observer_->OnDelta(text.substr(known));
  }

 private:
  GenerationObserver* const observer_;
  bool started_ = false;
  int32_t previewed_ = 0;
  // Bytes of the answer.
  size_t heard_ = 0;
  size_t position_ = 0;  // of the present stream
};

}  // namespace lancet
