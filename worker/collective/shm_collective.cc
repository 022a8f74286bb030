#include "worker/collective/shm_collective.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/status_macros.h"
#include "worker/collective/futex.h"
#include "worker/collective/rank_sum.h"

namespace lancet {
namespace {

using SteadyClock = std::chrono::steady_clock;

// How long a sleeping rank goes without a look at its peers, the deadline and the state of the group: a dead
// peer is noticed within a few of these, and they cost a waiting rank well under 1 % of a core.
constexpr absl::Duration kTick = absl::Milliseconds(2);
// How long a rank waits for the segment before it looks whether it still should.
constexpr absl::Duration kCancelTick = absl::Milliseconds(20);
// With fewer cores than ranks the one waited for may need this very core.
constexpr absl::Duration kCrowdedSpin = absl::Microseconds(2);
// Looks between two readings of the clock while spinning.
constexpr int kSpinBatch = 32;
// A rank that ended in the microsecond between claiming the right to break the group and saying why.
constexpr std::chrono::milliseconds kBreakingPatience{100};
constexpr size_t kMaxNameLength = 200;

void CpuRelax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

std::string Describe(const ShmCall& call) {
  switch (call.op) {
    case ShmOp::kNone:
      return "nothing";
    case ShmOp::kForm:
      return "forming the group";
    case ShmOp::kAllReduceSum:
      return absl::StrCat("AllReduceSum of ", call.size, " floats");
    case ShmOp::kAllGather:
      return absl::StrCat("AllGather of ", call.size, " bytes per rank");
    case ShmOp::kBroadcast:
      return absl::StrCat("Broadcast of ", call.size, " bytes from rank ", call.root);
    case ShmOp::kBarrier:
      return "Barrier";
  }
  return absl::StrCat("unknown call ", static_cast<uint32_t>(call.op));
}

absl::Status CheckShape(int world_size, size_t capacity_floats) {
  if (world_size < 1 || world_size > kShmMaxRanks) {
    return absl::InvalidArgumentError(
        absl::StrCat("world_size ", world_size, " is outside [1, ", kShmMaxRanks, "]"));
  }
  if (capacity_floats > kShmMaxCapacityFloats) {
    return absl::InvalidArgumentError(
        absl::StrCat("capacity_floats ", capacity_floats, " is above ", kShmMaxCapacityFloats));
  }
  return absl::OkStatus();
}

absl::Status CheckOptions(const ShmOptions& options) {
  LANCET_RETURN_IF_ERROR(CheckShape(options.world_size, options.capacity_floats));
  if (options.rank < 0 || options.rank >= options.world_size) {
    return absl::InvalidArgumentError(
        absl::StrCat("rank ", options.rank, " is outside [0, ", options.world_size, ")"));
  }
  const std::string& name = options.segment_name;
  const bool plain = std::all_of(name.begin(), name.end(), [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '_' || c == '-';
  });
  if (name.empty() || name.size() > kMaxNameLength || !plain || name == "." || name == "..") {
    return absl::InvalidArgumentError(
        absl::StrCat("segment_name '", absl::CHexEscape(name.substr(0, kMaxNameLength)), "' is not 1 to ",
                     kMaxNameLength, " characters of [A-Za-z0-9._-]"));
  }
  return absl::OkStatus();
}

absl::Duration SpinFor(int world_size, absl::Duration max_spin) {
  return sysconf(_SC_NPROCESSORS_ONLN) < world_size ? std::min(max_spin, kCrowdedSpin) : max_spin;
}

// Phases wrap around; ranks are never more than a few apart.
bool Reached(uint32_t arrived, uint32_t phase) { return static_cast<int32_t>(arrived - phase) >= 0; }

absl::StatusOr<std::shared_ptr<ShmSegment>> OpenUnlessCancelled(const ShmOptions& options) {
  while (true) {
    absl::StatusOr<std::shared_ptr<ShmSegment>> segment =
        ShmSegment::OpenNamed(options.segment_name, options.world_size, options.capacity_floats,
                              std::min(options.create_deadline, absl::Now() + kCancelTick));
    if (!absl::IsDeadlineExceeded(segment.status()) || absl::Now() >= options.create_deadline) {
      return segment;
    }
    if (options.cancelled != nullptr && options.cancelled()) {
      return absl::CancelledError("cancelled while waiting for rank 0 to create the segment");
    }
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<ShmCollective>> ShmCollective::Create(const ShmOptions& options) {
  LANCET_RETURN_IF_ERROR(CheckOptions(options));
  const std::string& name = options.segment_name;
  LANCET_ASSIGN_OR_RETURN(std::shared_ptr<ShmSegment> segment,
                          options.rank == 0
                              ? ShmSegment::CreateNamed(name, options.world_size, options.capacity_floats)
                              : OpenUnlessCancelled(options));
  const ProcessId self = ProcessId::Self();
  ShmRankSlot& slot = segment->slot(options.rank);
  int32_t nobody = 0;
  if (!slot.pid.compare_exchange_strong(nobody, self.pid)) {
    return absl::AlreadyExistsError(
        absl::StrCat("rank ", options.rank, " of segment '", name, "' is already taken by process ", nobody));
  }
  std::unique_ptr<ShmCollective> collective(
      new ShmCollective(std::move(segment), options.rank, options.max_spin));
  slot.pid_namespace.store(self.pid_namespace);
  collective->cancelled_ = options.cancelled;
  const absl::Status formed =
      collective->Enter({ShmOp::kForm, 0, options.capacity_floats}, options.create_deadline);
  collective->cancelled_ = nullptr;
  // Whether it worked or not, nobody needs the name again. Every rank removes it, in case another ends before
  // it can.
  ShmSegment::Unlink(name);
  LANCET_RETURN_IF_ERROR(formed);
  collective->WatchPeers();
  return collective;
}

absl::StatusOr<std::vector<std::unique_ptr<ShmCollective>>> ShmCollective::CreateGroupInProcess(
    int world_size, size_t capacity_floats) {
  LANCET_RETURN_IF_ERROR(CheckShape(world_size, capacity_floats));
  LANCET_ASSIGN_OR_RETURN(std::shared_ptr<ShmSegment> segment,
                          ShmSegment::CreateAnonymous(world_size, capacity_floats));
  std::vector<std::unique_ptr<ShmCollective>> group;
  for (int rank = 0; rank < world_size; ++rank) {
    group.push_back(std::unique_ptr<ShmCollective>(new ShmCollective(segment, rank, ShmOptions().max_spin)));
  }
  return group;
}

ShmCollective::ShmCollective(std::shared_ptr<ShmSegment> segment, int rank, absl::Duration max_spin)
    : segment_(std::move(segment)),
      rank_(rank),
      world_size_(segment_->world_size()),
      spin_(SpinFor(world_size_, max_spin)),
      peers_(world_size_) {}

ShmCollective::~ShmCollective() {
  ShmRankSlot& slot = segment_->slot(rank_);
  slot.departed.store(1);
  FutexWakeAll(slot.arrived);
}

absl::StatusOr<absl::Span<float>> ShmCollective::PartialSumBuffer(size_t count) {
  if (Broken()) {
    return BrokenStatus();
  }
  if (count > segment_->capacity_floats()) {
    return absl::InvalidArgumentError(absl::StrCat("PartialSumBuffer: count ", count,
                                                   " is above the capacity of ", segment_->capacity_floats(),
                                                   " floats"));
  }
  return segment_->partial(rank_).first(count);
}

absl::StatusOr<absl::Span<const float>> ShmCollective::AllReduceSum(absl::Span<const float> partial,
                                                                    absl::Time deadline) {
  const size_t count = partial.size();
  if (count > segment_->capacity_floats()) {
    return Break(absl::InvalidArgumentError(absl::StrCat(
        "AllReduceSum: ", count, " floats are above the capacity of ", segment_->capacity_floats())));
  }
  float* const own = segment_->partial(rank_).data();
  if (count > 0 && partial.data() != own) {
    std::memmove(own, partial.data(), count * sizeof(float));
  }
  LANCET_RETURN_IF_ERROR(Enter({ShmOp::kAllReduceSum, 0, count}, deadline));
  std::array<const float*, kShmMaxRanks> partials;
  for (int rank = 0; rank < world_size_; ++rank) {
    partials[rank] = segment_->partial(rank).data();
  }
  const absl::Span<float> result = segment_->result();
  SumInRankOrder(absl::MakeConstSpan(partials.data(), world_size_), RankSlice(count, rank_, world_size_),
                 result.data());
  LANCET_RETURN_IF_ERROR(Arrive(deadline));
  return result.first(count);
}

absl::Status ShmCollective::AllGather(absl::Span<const std::byte> mine, absl::Span<std::byte> all,
                                      absl::Time deadline) {
  const size_t size = mine.size();
  if (all.size() / world_size_ != size || all.size() % world_size_ != 0) {
    return Break(absl::InvalidArgumentError(absl::StrCat(
        "AllGather: `all` has ", all.size(), " bytes, expected ", world_size_, " ranks * ", size)));
  }
  size_t offset = 0;
  do {
    const size_t count = std::min(kShmExchangeBytes, size - offset);
    const uint32_t parity = exchanges_ & 1;
    if (count > 0) {
      std::memcpy(segment_->exchange(rank_, parity).data(), mine.data() + offset, count);
    }
    LANCET_RETURN_IF_ERROR(Exchange({ShmOp::kAllGather, 0, size}, offset == 0, deadline));
    for (int rank = 0; rank < world_size_ && count > 0; ++rank) {
      std::memcpy(all.data() + rank * size + offset, segment_->exchange(rank, parity).data(), count);
    }
    offset += count;
  } while (offset < size);
  return absl::OkStatus();
}

absl::Status ShmCollective::Broadcast(absl::Span<std::byte> data, int root, absl::Time deadline) {
  if (root < 0 || root >= world_size_) {
    return Break(absl::InvalidArgumentError(
        absl::StrCat("Broadcast: root ", root, " is outside [0, ", world_size_, ")")));
  }
  const ShmCall call = {ShmOp::kBroadcast, static_cast<uint32_t>(root), data.size()};
  size_t offset = 0;
  do {
    const size_t count = std::min(kShmExchangeBytes, data.size() - offset);
    std::byte* const shared = segment_->exchange(root, exchanges_ & 1).data();
    if (count > 0 && rank_ == root) {
      std::memcpy(shared, data.data() + offset, count);
    }
    LANCET_RETURN_IF_ERROR(Exchange(call, offset == 0, deadline));
    if (count > 0 && rank_ != root) {
      std::memcpy(data.data() + offset, shared, count);
    }
    offset += count;
  } while (offset < data.size());
  return absl::OkStatus();
}

absl::Status ShmCollective::Barrier(absl::Time deadline) { return Enter({ShmOp::kBarrier, 0, 0}, deadline); }

void ShmCollective::Abort(absl::Status reason) {
  if (reason.ok()) {
    reason = absl::AbortedError("the collective was aborted");
  }
  {
    std::lock_guard<std::mutex> lock(mu_);
    if (failure_code_ == absl::StatusCode::kOk) {
      failure_code_ = reason.code();
      failure_message_ = std::string(reason.message());
    }
  }
  Break(absl::Status(reason.code(), absl::StrCat("rank ", rank_, " aborted the group: ", reason.message())))
      .IgnoreError();
}

absl::Status ShmCollective::Enter(const ShmCall& call, absl::Time deadline) {
  if (Broken()) {
    return BrokenStatus();
  }
  call_ = call;
  segment_->slot(rank_).calls[calls_ & 1] = call;
  LANCET_RETURN_IF_ERROR(Arrive(deadline));
  LANCET_RETURN_IF_ERROR(CompareCalls());
  ++calls_;
  return absl::OkStatus();
}

absl::Status ShmCollective::Exchange(const ShmCall& call, bool first, absl::Time deadline) {
  ++exchanges_;
  return first ? Enter(call, deadline) : Arrive(deadline);
}

absl::Status ShmCollective::CompareCalls() {
  const ShmCall& first = segment_->slot(0).calls[calls_ & 1];
  for (int rank = 1; rank < world_size_; ++rank) {
    const ShmCall& other = segment_->slot(rank).calls[calls_ & 1];
    if (other != first) {
      return Break(absl::InternalError(absl::StrCat("the ranks make different calls: rank 0 ",
                                                    Describe(first), ", rank ", rank, " ", Describe(other))));
    }
  }
  return absl::OkStatus();
}

absl::Status ShmCollective::Arrive(absl::Time deadline) {
  ++phase_;
  ShmRankSlot& slot = segment_->slot(rank_);
  // Sequentially consistent against SleepUntilArrived: either it sees the new phase, or this sees the
  // sleeper.
  slot.arrived.store(phase_, std::memory_order_seq_cst);
  if (slot.sleepers.load(std::memory_order_seq_cst) > 0) {
    FutexWakeAll(slot.arrived);
  }
  return SpinUntilArrived(phase_) ? absl::OkStatus() : SleepUntilArrived(phase_, deadline);
}

int ShmCollective::FirstMissing(uint32_t phase, int from) const {
  int rank = from;
  while (rank < world_size_ && Reached(segment_->slot(rank).arrived.load(std::memory_order_acquire), phase)) {
    ++rank;
  }
  return rank;
}

bool ShmCollective::SpinUntilArrived(uint32_t phase) const {
  int missing = FirstMissing(phase, 0);
  if (missing == world_size_) {
    return true;
  }
  const SteadyClock::time_point end = SteadyClock::now() + absl::ToChronoNanoseconds(spin_);
  do {
    for (int i = 0; i < kSpinBatch; ++i) {
      CpuRelax();
      missing = FirstMissing(phase, missing);
      if (missing == world_size_) {
        return true;
      }
    }
  } while (!Broken() && SteadyClock::now() < end);
  return false;
}

absl::Status ShmCollective::SleepUntilArrived(uint32_t phase, absl::Time deadline) {
  // The wall clock may jump while this waits, so the deadline becomes a length once. Capped, as
  // InfiniteFuture has no length.
  const absl::Duration left = std::min(deadline - absl::Now(), absl::Hours(24 * 365));
  const SteadyClock::time_point end = SteadyClock::now() + absl::ToChronoNanoseconds(left);
  int missing = 0;
  while ((missing = FirstMissing(phase, missing)) < world_size_) {
    if (Broken()) {
      return BrokenStatus();
    }
    LANCET_RETURN_IF_ERROR(CheckPeers(phase));
    if (cancelled_ != nullptr && cancelled_()) {
      return Break(
          absl::CancelledError(absl::StrCat("rank ", rank_, " was cancelled while the group formed")));
    }
    const absl::Duration remaining = absl::FromChrono(end - SteadyClock::now());
    if (remaining <= absl::ZeroDuration()) {
      return Break(
          absl::DeadlineExceededError(absl::StrCat("rank ", missing, " did not come to the call of rank ",
                                                   rank_, " (", Describe(call_), ") before its deadline")));
    }
    ShmRankSlot& slot = segment_->slot(missing);
    slot.sleepers.fetch_add(1, std::memory_order_seq_cst);
    const uint32_t arrived = slot.arrived.load(std::memory_order_seq_cst);
    // A group that breaks just before this call is noticed one tick later.
    if (!Reached(arrived, phase) && !Broken()) {
      FutexWait(slot.arrived, arrived, std::min(remaining, kTick));
    }
    slot.sleepers.fetch_sub(1, std::memory_order_relaxed);
  }
  return absl::OkStatus();
}

absl::Status ShmCollective::CheckPeers(uint32_t phase) {
  WatchPeers();
  for (int rank = 0; rank < world_size_; ++rank) {
    // A rank that has arrived at an unfinished phase is in a call, so it is missed as well; once the phase is
    // finished it may go.
    const bool gone = segment_->slot(rank).departed.load() != 0 || peers_.Ended(rank);
    if (gone && FirstMissing(phase, 0) < world_size_) return CheckPeer(rank, Describe(call_));
  }
  return absl::OkStatus();
}

absl::Status ShmCollective::CheckPeer(int rank, const std::string& call) {
  const ShmRankSlot& slot = segment_->slot(rank);
  const bool departed = slot.departed.load() != 0;
  if (!departed && !peers_.Ended(rank)) return absl::OkStatus();
  return Break(absl::UnavailableError(
      absl::StrCat("rank ", rank, " is gone: ", departed ? "it left the group" : "its process has ended",
                   " (process ", slot.pid.load(), ", missed by rank ", rank_, " in ", call, ")")));
}

absl::Status ShmCollective::Check() {
  if (Broken()) return BrokenStatus();
  WatchPeers();
  for (int rank = 0; rank < world_size_; ++rank) {
    if (rank != rank_) LANCET_RETURN_IF_ERROR(CheckPeer(rank, "work of the device"));
  }
  return absl::OkStatus();
}

void ShmCollective::WatchPeers() {
  for (int rank = 0; rank < world_size_; ++rank) {
    if (peers_.watches(rank)) {
      continue;
    }
    // 0: not there yet, or a thread of this process.
    const uint64_t pid_namespace = segment_->slot(rank).pid_namespace.load();
    if (pid_namespace != 0) {
      peers_.Watch(rank, {segment_->slot(rank).pid.load(), pid_namespace});
    }
  }
}

bool ShmCollective::Broken() const {
  return segment_->header().state.load(std::memory_order_acquire) != ShmState::kWhole;
}

absl::Status ShmCollective::Break(const absl::Status& reason) {
  ShmHeader& header = segment_->header();
  ShmState whole = ShmState::kWhole;
  if (header.state.compare_exchange_strong(whole, ShmState::kBreaking)) {
    header.broken_code = static_cast<int32_t>(reason.code());
    header.message_bytes = static_cast<uint32_t>(std::min(reason.message().size(), sizeof(header.message)));
    std::memcpy(header.message, reason.message().data(), header.message_bytes);
    header.state.store(ShmState::kBroken, std::memory_order_release);
    for (int rank = 0; rank < world_size_; ++rank) {
      FutexWakeAll(segment_->slot(rank).arrived);
    }
  }
  return BrokenStatus();
}

absl::Status ShmCollective::BrokenStatus() {
  std::lock_guard<std::mutex> lock(mu_);
  if (failure_code_ == absl::StatusCode::kOk) {
    const ShmHeader& header = segment_->header();
    const SteadyClock::time_point patience = SteadyClock::now() + kBreakingPatience;
    while (header.state.load(std::memory_order_acquire) != ShmState::kBroken &&
           SteadyClock::now() < patience) {
      sched_yield();
    }
    if (header.state.load(std::memory_order_acquire) == ShmState::kBroken) {
      failure_code_ = static_cast<absl::StatusCode>(header.broken_code);
      failure_message_ =
          std::string(header.message, std::min<size_t>(header.message_bytes, sizeof(header.message)));
    } else {
      failure_code_ = absl::StatusCode::kUnavailable;
      failure_message_ = "a rank ended while it was breaking the group";
    }
  }
  return absl::Status(failure_code_, failure_message_);
}

}  // namespace lancet
