// What `lancet describe` makes of a request's events: the answer as it comes, facts for scripts.
#pragma once

#include <ostream>
#include <string>

#include "absl/strings/string_view.h"
#include "client/generation_client.h"

namespace lancet {

struct DescriptionOutputOptions {
  bool quiet = false;  // nothing on `err`
  bool json = false;   // events as JSON lines on `out`
};

// Not thread-safe. The streams outlive it.
class DescriptionOutput final : public GenerationObserver {
 public:
  DescriptionOutput(DescriptionOutputOptions options, std::ostream& out, std::ostream& err);

  void OnQueued(const QueuedInfo& queued) override;
  void OnStarted(const StartedInfo& started) override;
  void OnDelta(absl::string_view text) override;

  // Ends the answer's line, if it has begun.
  void EndLine();
  void Finish(const DescriptionResult& result);

 private:
  const DescriptionOutputOptions options_;
  std::ostream& out_;
  std::ostream& err_;
  bool line_open_ = false;
};

}  // namespace lancet
