#include "coordinator/access/access_control.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>

#include "absl/strings/str_cat.h"
#include "common/rank_proof.h"
#include "tests/testing/certificates.h"

namespace lancet {
namespace {

using ::testing::HasSubstr;

std::string Line(absl::string_view name, absl::string_view token, absl::string_view limits = "") {
  return absl::StrCat(name, " sha256:", ToHex(Sha256(token)), " ", limits, "\n");
}

class AccessControlTest : public ::testing::Test {
 protected:
  void Write(const std::string& text) { path_ = WriteTestFile(::testing::TempDir(), "tokens", text); }
  void Make(const std::string& text) {
    Write(text);
    auto made = AccessControl::Create(path_);
    ASSERT_TRUE(made.ok()) << made.status();
    control_ = *std::move(made);
  }
  absl::StatusCode Code(absl::string_view authorization) {
    return control_->Enter(authorization).status().code();
  }

  std::string path_;
  std::unique_ptr<AccessControl> control_;
  const absl::Time now_ = absl::FromUnixSeconds(1000);
};

TEST_F(AccessControlTest, LetsInWhoHasATokenAndNobodyElse) {
  Make(Line("alice", "a-token") + Line("ops", "b-token", "admin"));
  const auto alice = control_->Enter("Bearer a-token");
  ASSERT_TRUE(alice.ok()) << alice.status();
  EXPECT_EQ(alice->name(), "alice");
  EXPECT_FALSE(alice->admin());
  EXPECT_TRUE(control_->Enter("Bearer b-token")->admin());
  std::string message;
  for (const std::string& wrong :
       {std::string(), std::string("a-token"), std::string("bearer a-token"), std::string("Bearer "),
        std::string("Bearer a-tokem"), std::string("Bearer a-token "), "Bearer " + ToHex(Sha256("a-token")),
        "Bearer " + std::string(100000, 'a')}) {
    const absl::Status status = control_->Enter(wrong).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnauthenticated) << wrong.substr(0, 20);
    // All are told the same.
    if (message.empty()) message = std::string(status.message());
    EXPECT_EQ(status.message(), message);
  }
}

TEST_F(AccessControlTest, WithoutAFileEverybodyMayEverything) {
  auto open = AccessControl::Create("");
  ASSERT_TRUE(open.ok());
  auto lease = (*open)->Enter("");
  ASSERT_TRUE(lease.ok());
  EXPECT_TRUE(lease->admin());
  EXPECT_EQ(lease->name(), "");
  EXPECT_EQ(lease->MaxWaiting(64), 0);
  EXPECT_TRUE(lease->Charge(int64_t{1} << 60, now_).status.ok());
}

TEST_F(AccessControlTest, CountsConcurrentCallsOfOneToken) {
  Make(Line("alice", "a", "max_concurrent=2") + Line("bob", "b"));
  auto first = control_->Enter("Bearer a");
  std::optional<AccessLease> second = *control_->Enter("Bearer a");
  EXPECT_EQ(Code("Bearer a"), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(Code("Bearer b"), absl::StatusCode::kOk);
  second.reset();
  EXPECT_EQ(Code("Bearer a"), absl::StatusCode::kOk);
  // Moving a lease neither ends nor doubles it.
  AccessLease moved = *std::move(first);
  auto again = control_->Enter("Bearer a");
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(Code("Bearer a"), absl::StatusCode::kResourceExhausted);
}

TEST_F(AccessControlTest, ChargesByTheMinute) {
  Make(Line("alice", "a", "pixel_steps_per_minute=6000"));
  AccessLease lease = *control_->Enter("Bearer a");
  EXPECT_TRUE(lease.Charge(4000, now_).status.ok());
  const AccessLease::Charged refused = lease.Charge(3000, now_);
  EXPECT_EQ(refused.status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(refused.retry_after, absl::Seconds(10));  // 1000 are missing, 100 come a second
  EXPECT_EQ(lease.Charge(3000, now_ + absl::Seconds(9)).status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(lease.Charge(3000, now_ + absl::Seconds(10)).status.ok());
  // A lease of the same token draws on the same account, which never holds more than a minute's worth.
  AccessLease other = *control_->Enter("Bearer a");
  EXPECT_EQ(other.Charge(6000, now_ + absl::Seconds(10)).status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(other.Charge(6000, now_ + absl::Hours(5)).status.ok());
  EXPECT_EQ(other.Charge(1, now_ + absl::Hours(5)).status.code(), absl::StatusCode::kResourceExhausted);
  other.Refund();
  other.Refund();  // once is all
  EXPECT_TRUE(other.Charge(6000, now_ + absl::Hours(5)).status.ok());
  const AccessLease::Charged never = lease.Charge(6001, now_ + absl::Hours(9));
  EXPECT_EQ(never.status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(never.status.message()), HasSubstr("6000"));
}

TEST_F(AccessControlTest, HasAShareOfTheQueue) {
  Make(Line("alice", "a", "queue_share=0.25") + Line("bob", "b", "queue_share=0.001") + Line("eve", "e"));
  EXPECT_EQ(control_->Enter("Bearer a")->MaxWaiting(64), 16);
  EXPECT_EQ(control_->Enter("Bearer b")->MaxWaiting(64), 1);
  EXPECT_EQ(control_->Enter("Bearer e")->MaxWaiting(64), 0);
}

TEST_F(AccessControlTest, ReadsTheFileAgain) {
  Make(Line("alice", "a", "max_concurrent=2") + Line("bob", "b"));
  const auto held = control_->Enter("Bearer a");
  Write(Line("alice", "new", "max_concurrent=1"));
  control_->Reload();
  EXPECT_EQ(Code("Bearer b"), absl::StatusCode::kUnauthenticated);
  EXPECT_EQ(Code("Bearer a"), absl::StatusCode::kUnauthenticated);
  // The account goes by the name, so a new token does not come with a new allowance.
  EXPECT_EQ(Code("Bearer new"), absl::StatusCode::kResourceExhausted);
  Write("nonsense");
  control_->Reload();
  EXPECT_EQ(Code("Bearer new"), absl::StatusCode::kResourceExhausted);
  Write(Line("alice", "new", "max_concurrent=2"));
  control_->Reload();
  EXPECT_EQ(Code("Bearer new"), absl::StatusCode::kOk);
  std::remove(path_.c_str());
  control_->Reload();
  EXPECT_EQ(Code("Bearer new"), absl::StatusCode::kOk);
}

TEST_F(AccessControlTest, SaysWhatIsWrongWithTheFile) {
  Write("alice\n");
  const absl::Status status = AccessControl::Create(path_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr(path_));
  EXPECT_THAT(std::string(status.message()), HasSubstr("line 1"));
  EXPECT_THAT(std::string(AccessControl::Create("/nowhere/tokens").status().message()),
              HasSubstr("/nowhere/tokens"));
}

TEST(RankProofTest, IsOfOneStreamAndOneClaim) {
  const RankClaim claim{"g", 1, 2, "f00d"};
  const std::string proof = RankProof("secret", "nonce", claim);
  EXPECT_EQ(proof.size(), 64u);
  EXPECT_EQ(proof, RankProof("secret", "nonce", claim));
  EXPECT_NE(proof, RankProof("secreu", "nonce", claim));
  EXPECT_NE(proof, RankProof("secret", "noncf", claim));
  EXPECT_NE(proof, RankProof("secret", "nonce", {"h", 1, 2, "f00d"}));
  EXPECT_NE(proof, RankProof("secret", "nonce", {"g", 0, 2, "f00d"}));
  EXPECT_NE(proof, RankProof("secret", "nonce", {"g", 1, 3, "f00d"}));
  EXPECT_NE(proof, RankProof("secret", "nonce", {"g", 1, 2, "f00e"}));
}

}  // namespace
}  // namespace lancet
