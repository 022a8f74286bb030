// Early return on a failed absl::Status or absl::StatusOr. The expression is evaluated once.
#pragma once

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define LANCET_CONCAT_INNER_(a, b) a##b
#define LANCET_CONCAT_(a, b) LANCET_CONCAT_INNER_(a, b)

#define LANCET_RETURN_IF_ERROR(expr)          \
  do {                                        \
    if (absl::Status s_ = (expr); !s_.ok()) { \
      return s_;                              \
    }                                         \
  } while (false)

// LANCET_ASSIGN_OR_RETURN(auto x, MakeX());
#define LANCET_ASSIGN_OR_RETURN(lhs, expr) \
  LANCET_ASSIGN_OR_RETURN_IMPL_(LANCET_CONCAT_(status_or_, __LINE__), lhs, expr)

#define LANCET_ASSIGN_OR_RETURN_IMPL_(result, lhs, expr) \
  auto result = (expr);                                  \
  if (!result.ok()) {                                    \
    return std::move(result).status();                   \
  }                                                      \
  lhs = *std::move(result)
