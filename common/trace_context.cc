#include "common/trace_context.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"

namespace lancet {
namespace {

constexpr size_t kLength = 55;  // of version 00

bool IsLowerHex(absl::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) {
    return absl::ascii_isdigit(static_cast<unsigned char>(c)) || (c >= 'a' && c <= 'f');
  });
}

uint64_t Hex(absl::string_view digits) {
  uint64_t value = 0;
  // Checked by IsLowerHex and at most 16 digits.
  return absl::SimpleHexAtoi(digits, &value) ? value : 0;
}

uint64_t NonZero(const std::function<uint64_t()>& random) { return std::max<uint64_t>(random(), 1); }

}  // namespace

std::string TraceContext::TraceId() const { return absl::StrFormat("%016x%016x", trace_high, trace_low); }

std::string TraceContext::ToTraceparent() const {
  return absl::StrFormat("00-%s-%016x-%02x", TraceId(), span, flags);
}

absl::StatusOr<TraceContext> ParseTraceparent(absl::string_view text) {
  // The text itself is the client's and is not repeated.
  const auto bad = [] {
    return absl::InvalidArgumentError("traceparent: expected 00-<32 hex digits>-<16>-<2>, in lower case");
  };
  if (text.size() < kLength || text[2] != '-' || text[35] != '-' || text[52] != '-') return bad();
  const absl::string_view version = text.substr(0, 2);
  if (!IsLowerHex(version) || version == "ff") return bad();
  if (version == "00" ? text.size() != kLength : text.size() > kLength && text[kLength] != '-') return bad();
  const absl::string_view trace = text.substr(3, 32);
  const absl::string_view span = text.substr(36, 16);
  const absl::string_view flags = text.substr(53, 2);
  if (!IsLowerHex(trace) || !IsLowerHex(span) || !IsLowerHex(flags)) return bad();
  const TraceContext context{Hex(trace.substr(0, 16)), Hex(trace.substr(16)), Hex(span),
                             static_cast<uint8_t>(Hex(flags) & 1)};
  if (context.empty() || context.span == 0) return bad();
  return context;
}

TraceContext ContinueTrace(absl::string_view text, const std::function<uint64_t()>& random) {
  const absl::StatusOr<TraceContext> parent = ParseTraceparent(text);
  TraceContext context = parent.ok() ? *parent : TraceContext{random(), NonZero(random), 0, 0};
  context.span = NonZero(random);
  return context;
}

}  // namespace lancet
