#include "coordinator/access/access_control.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/logging.h"
#include "common/status_macros.h"

namespace lancet {
namespace {

constexpr size_t kMaxFileBytes = 1 << 20;
// Longer ones are not hashed.
constexpr size_t kMaxTokenBytes = 4096;

absl::string_view Bytes(const Sha256Digest& digest) {
  return {reinterpret_cast<const char*>(digest.data()), digest.size()};
}

}  // namespace

struct TokenAccount {
  explicit TokenAccount(TokenEntry e)
      : entry(std::move(e)), left(static_cast<double>(entry.limits.pixel_steps_per_minute)) {}

  std::mutex mu;     // guards everything below
  TokenEntry entry;  // its limits change with the file; name and hash do not
  int32_t active = 0;
  double left;  // pixel * steps that may be used now
  absl::Time as_of = absl::InfinitePast();
};

AccessLease& AccessLease::operator=(AccessLease&& other) noexcept {
  std::swap(account_, other.account_);
  std::swap(charged_, other.charged_);
  return *this;
}

AccessLease::~AccessLease() {
  if (account_ == nullptr) return;
  const std::lock_guard<std::mutex> lock(account_->mu);
  --account_->active;
}

const std::string& AccessLease::name() const {
  static const std::string& nobody = *new std::string();
  return account_ == nullptr ? nobody : account_->entry.name;
}

bool AccessLease::admin() const {
  if (account_ == nullptr) return true;
  const std::lock_guard<std::mutex> lock(account_->mu);
  return account_->entry.admin;
}

int AccessLease::MaxWaiting(int max_queue) const {
  if (account_ == nullptr) return 0;
  const std::lock_guard<std::mutex> lock(account_->mu);
  const double share = account_->entry.limits.queue_share;
  return share >= 1 ? 0 : std::max(1, static_cast<int>(std::floor(share * max_queue)));
}

AccessLease::Charged AccessLease::Charge(int64_t pixel_steps, absl::Time now) {
  if (account_ == nullptr) return {};
  const std::lock_guard<std::mutex> lock(account_->mu);
  const int64_t limit = account_->entry.limits.pixel_steps_per_minute;
  if (limit == 0) return {};
  if (pixel_steps > limit) {
    return {absl::FailedPreconditionError(absl::StrCat("width * height * steps is ", pixel_steps,
                                                       ", but this token may use ", limit, " a minute")),
            absl::ZeroDuration()};
  }
  const double a_second = static_cast<double>(limit) / 60;
  if (account_->as_of > absl::InfinitePast()) {
    account_->left += std::max(0.0, absl::ToDoubleSeconds(now - account_->as_of)) * a_second;
  }
  account_->left = std::min(account_->left, static_cast<double>(limit));
  account_->as_of = now;
  const double missing = static_cast<double>(pixel_steps) - account_->left;
  if (missing > 0) {
    return {absl::ResourceExhaustedError(
                absl::StrCat("this token has used its ", limit, " pixels * steps a minute")),
            std::max(absl::Seconds(1), absl::Seconds(missing / a_second))};
  }
  account_->left -= static_cast<double>(pixel_steps);
  charged_ += pixel_steps;
  return {};
}

void AccessLease::Refund() {
  if (account_ == nullptr) return;
  const std::lock_guard<std::mutex> lock(account_->mu);
  account_->left += static_cast<double>(std::exchange(charged_, 0));
}

absl::StatusOr<std::unique_ptr<AccessControl>> AccessControl::Create(std::string token_file) {
  std::string text;
  std::vector<TokenEntry> entries;
  if (!token_file.empty()) {
    LANCET_ASSIGN_OR_RETURN(text, ReadSecretFile(token_file, 0, kMaxFileBytes));
    absl::StatusOr<std::vector<TokenEntry>> parsed = ParseTokenFile(text);
    if (!parsed.ok()) {
      return absl::InvalidArgumentError(absl::StrCat("'", token_file, "' ", parsed.status().message()));
    }
    entries = *std::move(parsed);
  }
  auto control = absl::WrapUnique(new AccessControl(std::move(token_file), std::move(text)));
  control->Take(std::move(entries));
  return control;
}

AccessControl::AccessControl(std::string token_file, std::string text)
    : token_file_(std::move(token_file)), text_(std::move(text)) {}

void AccessControl::Take(std::vector<TokenEntry> entries) {
  const std::lock_guard<std::mutex> lock(mu_);
  std::vector<std::pair<Sha256Digest, std::shared_ptr<TokenAccount>>> tokens;
  for (TokenEntry& entry : entries) {
    // A token keeps what it has in use, also when it is replaced under its name.
    const auto old = std::find_if(tokens_.begin(), tokens_.end(),
                                  [&entry](const auto& t) { return t.second->entry.name == entry.name; });
    std::shared_ptr<TokenAccount> account;
    const Sha256Digest hash = entry.hash;
    if (old != tokens_.end()) {
      account = old->second;
      const std::lock_guard<std::mutex> account_lock(account->mu);
      account->entry.limits = entry.limits;
      account->entry.admin = entry.admin;
    } else {
      account = std::make_shared<TokenAccount>(std::move(entry));
    }
    tokens.emplace_back(hash, std::move(account));
  }
  tokens_ = std::move(tokens);
}

absl::StatusOr<AccessLease> AccessControl::Enter(absl::string_view authorization) {
  if (!asks_for_tokens()) return AccessLease();
  const auto nobody = [] {
    return absl::UnauthenticatedError("authorization: expected 'Bearer ' and a token that this server knows");
  };
  if (authorization.size() > kMaxTokenBytes || !absl::ConsumePrefix(&authorization, "Bearer "))
    return nobody();
  const Sha256Digest hash = Sha256(authorization);
  std::shared_ptr<TokenAccount> account;
  {
    const std::lock_guard<std::mutex> lock(mu_);
    // All of them, so that the time does not tell which one was nearly right.
    for (const auto& [known, candidate] : tokens_) {
      if (EqualInConstantTime(Bytes(known), Bytes(hash))) account = candidate;
    }
  }
  if (account == nullptr) return nobody();
  {
    const std::lock_guard<std::mutex> lock(account->mu);
    const int32_t most = account->entry.limits.max_concurrent;
    if (most > 0 && account->active >= most) {
      return absl::ResourceExhaustedError(
          absl::StrCat("this token has ", account->active, " calls; the limit is ", most));
    }
    ++account->active;
  }
  return AccessLease(std::move(account));
}

void AccessControl::Reload() {
  if (!asks_for_tokens()) return;
  absl::StatusOr<std::string> text = ReadSecretFile(token_file_, 0, kMaxFileBytes);
  if (text.ok() && *text == text_) return;
  absl::StatusOr<std::vector<TokenEntry>> entries = text.ok() ? ParseTokenFile(*text) : text.status();
  const std::string seen = text.ok() ? *text : "?";  // no file of ours: the same trouble is said once
  if (seen == text_) return;
  text_ = seen;
  if (!entries.ok()) {
    LogWarning("tokens not read again; the last ones count",
               {{"file", token_file_}, {"reason", entries.status().message()}});
    return;
  }
  LogInfo("tokens read again", {{"file", token_file_}, {"tokens", entries->size()}});
  Take(*std::move(entries));
}

}  // namespace lancet
