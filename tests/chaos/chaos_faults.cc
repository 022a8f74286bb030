#include "tests/chaos/chaos_faults.h"

#include <signal.h>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/status_macros.h"

namespace lancet {
namespace {

// Long enough to be noticed (2 s without an answer), or not.
constexpr absl::Duration kLongestHang = absl::Seconds(4);
constexpr absl::Duration kLongestDown = absl::Milliseconds(300);

absl::Status AwaitEnd(Process& process, const char* what) {
  if (process.AwaitEnd(kClusterDeadline).has_value()) return absl::OkStatus();
  return absl::DeadlineExceededError(absl::StrCat(what, " did not end"));
}

}  // namespace

void ChaosFaults::Wait(absl::Duration most) {
  absl::SleepFor(most * std::uniform_real_distribution<double>(0, 1)(random_));
}

void ChaosFaults::Note(const std::string& name, int worker) {
  ++counts_[name];
  last_ = worker < 0 ? name : absl::StrCat(name, " ", worker);
}

absl::Status ChaosFaults::Next() {
  const int worker = static_cast<int>(random_() % static_cast<uint64_t>(cluster_->num_workers()));
  const auto dice = random_() % 100;
  if (dice < 36) {
    Note("rank killed", worker);
    return Kill(worker);
  }
  if (dice < 53) {
    Note("rank stopped", worker);
    Hang(worker);
    return absl::OkStatus();
  }
  if (dice < 65) {
    Note("rank cut off", worker);
    return CutOff(worker);
  }
  if (dice < 78) {
    Note("rank told to leave", worker);
    return Leave(worker);
  }
  if (dice < 88) {
    Note("group killed", worker);
    return KillGroup(worker);
  }
  Note("coordinator killed", -1);
  return KillCoordinator();
}

absl::Status ChaosFaults::Kill(int worker) {
  cluster_->worker(worker).Signal(SIGKILL);
  LANCET_RETURN_IF_ERROR(AwaitEnd(cluster_->worker(worker), "a killed rank"));
  Wait(kLongestDown);
  return cluster_->StartWorker(worker);
}

absl::Status ChaosFaults::KillGroup(int worker) {
  const int size = cluster_->world_size();
  const int first = worker / size * size;
  for (int w = first; w < first + size; ++w) cluster_->worker(w).Signal(SIGKILL);
  for (int w = first; w < first + size; ++w) {
    LANCET_RETURN_IF_ERROR(AwaitEnd(cluster_->worker(w), "a killed rank"));
    Wait(kLongestDown);
    LANCET_RETURN_IF_ERROR(cluster_->StartWorker(w));
  }
  return absl::OkStatus();
}

absl::Status ChaosFaults::Leave(int worker) {
  cluster_->worker(worker).Signal(SIGTERM);
  LANCET_RETURN_IF_ERROR(AwaitEnd(cluster_->worker(worker), "a rank that was told to leave"));
  return cluster_->StartWorker(worker);
}

void ChaosFaults::Hang(int worker) {
  cluster_->worker(worker).Signal(SIGSTOP);
  Wait(kLongestHang);
  cluster_->worker(worker).Signal(SIGCONT);
}

absl::Status ChaosFaults::CutOff(int worker) {
  LANCET_RETURN_IF_ERROR(cluster_->SetLink(worker, /*up=*/false));
  Wait(kLongestHang);
  return cluster_->SetLink(worker, /*up=*/true);
}

absl::Status ChaosFaults::KillCoordinator() {
  cluster_->coordinator().Signal(SIGKILL);
  LANCET_RETURN_IF_ERROR(AwaitEnd(cluster_->coordinator(), "the killed coordinator"));
  Wait(kLongestDown);
  return cluster_->StartCoordinator();
}

}  // namespace lancet
