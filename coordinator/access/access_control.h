// Lets callers in by their bearer token and keeps each within its limits. Without a token file everybody is
// let in and only the limits of the whole service count.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "coordinator/access/token_file.h"

namespace lancet {

// What one token has in use; shared by its calls, so that it outlives a token that is taken from the file.
struct TokenAccount;

// A call's permission to exist: counts as one of its token's concurrent calls until it is destroyed. Without
// tokens it stands for nobody. Not thread-safe; move-only.
class AccessLease {
 public:
  AccessLease() = default;
  explicit AccessLease(std::shared_ptr<TokenAccount> account) : account_(std::move(account)) {}
  AccessLease(AccessLease&& other) = default;
  AccessLease& operator=(AccessLease&& other) noexcept;
  ~AccessLease();

  const std::string& name() const;  // of the token; empty if none is asked for
  bool admin() const;
  // Requests of this token that may wait in a queue of `max_queue`; 0: all.
  int MaxWaiting(int max_queue) const;

  // How a charge went; `retry_after` with ResourceExhausted.
  struct Charged {
    absl::Status status;
    absl::Duration retry_after;
  };
  // Takes `pixel_steps` from what the token may still use this minute. ResourceExhausted if there is not as
  // much now, FailedPrecondition if there never is.
  Charged Charge(int64_t pixel_steps, absl::Time now);
  // Gives back what was charged: nothing was done for it.
  void Refund();

 private:
  std::shared_ptr<TokenAccount> account_;
  int64_t charged_ = 0;
};

// Thread-safe.
class AccessControl {
 public:
  // `token_file` may be empty: no tokens. InvalidArgument names file, line and field.
  static absl::StatusOr<std::unique_ptr<AccessControl>> Create(std::string token_file);

  // `authorization` is the metadata of that name, "Bearer <token>". Unauthenticated, which does not say what
  // was wrong; ResourceExhausted when the token has as many calls as it may.
  absl::StatusOr<AccessLease> Enter(absl::string_view authorization);

  bool asks_for_tokens() const { return !token_file_.empty(); }
  // Reads the file again if it has changed. One that is wrong changes nothing; it is said in the log once. At
  // intervals, from one thread at a time.
  void Reload();

 private:
  AccessControl(std::string token_file, std::string text);
  void Take(std::vector<TokenEntry> entries);

  const std::string token_file_;
  std::string text_;  // of the file, as read last; of Reload's thread

  std::mutex mu_;  // guards everything below
  // In no order; every one is compared with.
  std::vector<std::pair<Sha256Digest, std::shared_ptr<TokenAccount>>> tokens_;
};

}  // namespace lancet
