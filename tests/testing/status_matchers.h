// gMock matchers for absl::Status and absl::StatusOr.
//   EXPECT_THAT(status, IsOk());
//   EXPECT_THAT(status_or, Fails(absl::StatusCode::kInvalidArgument, AllOf(HasSubstr("steps"),
//   HasSubstr("10000"))));
#pragma once

#include <gmock/gmock.h>

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace lancet {

inline const absl::Status& StatusOf(const absl::Status& status) { return status; }
template <typename T>
const absl::Status& StatusOf(const absl::StatusOr<T>& status_or) {
  return status_or.status();
}

MATCHER(IsOk, "is OK") {
  *result_listener << StatusOf(arg).ToString();
  return StatusOf(arg).ok();
}

// `message`: a string, or a matcher of strings.
MATCHER_P2(Fails, code, message,
           std::string("fails with ") + absl::StatusCodeToString(code) + " and a message that " +
               ::testing::DescribeMatcher<std::string>(message)) {
  *result_listener << StatusOf(arg).ToString();
  return StatusOf(arg).code() == code &&
         ::testing::ExplainMatchResult(message, std::string(StatusOf(arg).message()), result_listener);
}

}  // namespace lancet
