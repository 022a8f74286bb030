// W3C trace context (https://www.w3.org/TR/trace-context/): which trace of a client's a request belongs to.
// Only the traceparent header; its text is checked before anything of it is kept.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lancet {

struct TraceContext {
  uint64_t trace_high = 0;  // the trace id's first 8 bytes
  uint64_t trace_low = 0;
  uint64_t span = 0;  // of the parent
  uint8_t flags = 0;  // 1: the caller records this trace

  // 32 hex digits; zeros, which no trace has, if there is none.
  std::string TraceId() const;
  // "00-<trace id>-<span>-<flags>", 55 characters.
  std::string ToTraceparent() const;
  bool empty() const { return trace_high == 0 && trace_low == 0; }

  friend bool operator==(const TraceContext&, const TraceContext&) = default;
};

// InvalidArgument for text that is not a traceparent. Later versions than 00 are read as 00, as the
// recommendation asks for.
absl::StatusOr<TraceContext> ParseTraceparent(absl::string_view text);

// The context for work done on behalf of a caller: its trace with a span of our own, or, where `text` is
// empty or no traceparent, a new trace that nobody records.
TraceContext ContinueTrace(absl::string_view text, const std::function<uint64_t()>& random);

}  // namespace lancet
