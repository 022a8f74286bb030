// Cuts text into the pieces inside which byte pairs may join: Qwen2's pattern of contractions, words, single
// digits, punctuation and white space.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lancet {

// Immutable after creation, so thread-safe.
class Pretokenizer {
 public:
  static absl::StatusOr<Pretokenizer> Create();

  Pretokenizer(Pretokenizer&&) noexcept;
  Pretokenizer& operator=(Pretokenizer&&) noexcept;
  ~Pretokenizer();

  // Calls `sink` with every piece in order; together they are the text. `text` is valid UTF-8. Time is linear
  // in its length; Internal if the pattern engine gives up all the same.
  absl::Status Split(absl::string_view text, absl::FunctionRef<void(absl::string_view)> sink) const;

 private:
  struct Pattern;
  explicit Pretokenizer(std::unique_ptr<Pattern> pattern);

  std::unique_ptr<Pattern> pattern_;
};

}  // namespace lancet
