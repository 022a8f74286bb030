// What `lancet generate` makes of a request's events: files in a folder, progress for people, facts for
// scripts.
#pragma once

#include <optional>
#include <ostream>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/generation_client.h"
#include "client/inline_image.h"

namespace lancet {

struct OutputOptions {
  std::string out_dir;  // exists
  bool quiet = false;   // nothing on `err` but what went wrong
  bool json = false;    // events as JSON lines on `out`
  bool bar = false;     // `err` is a terminal: redraw one line
  int columns = 80;
  std::optional<InlineProtocol> show;  // draw pictures on `err`
};

// Not thread-safe. The streams outlive it.
class GenerationOutput final : public GenerationObserver {
 public:
  GenerationOutput(OutputOptions options, std::ostream& out, std::ostream& err);

  void OnQueued(const QueuedInfo& queued) override;
  void OnStarted(const StartedInfo& started) override;
  void OnProgress(const ProgressInfo& progress) override;
  void OnPreview(const PreviewInfo& preview) override;

  // Ends the line of the bar, if one stands there; call before anything else is written to `err`.
  void EndBar();

  // Writes result.EXT and reports it; the last line on `out` is "result: PATH". The first preview that could
  // not be written is an error here.
  absl::Status Finish(const GenerationResult& result);

 private:
  // Writes to a temporary name first, so that nobody sees half a picture. Returns the path.
  absl::StatusOr<std::string> WritePicture(const std::string& name, const PictureFile& image);
  void Show(const PictureFile& image);
  void Say(const std::string& line);

  const OutputOptions options_;
  std::ostream& out_;
  std::ostream& err_;
  bool bar_open_ = false;
  int total_steps_ = 0;
  absl::Status preview_status_;
};

}  // namespace lancet
