#include "worker/collective/tcp_collective.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/status_macros.h"
#include "worker/collective/rank_sum.h"

namespace lancet {
namespace {

using SteadyClock = std::chrono::steady_clock;

// More would starve the other threads of a rank that has one core.
constexpr absl::Duration kSpin = absl::Microseconds(50);
// With fewer cores than ranks the one waited for may need this very core.
constexpr absl::Duration kCrowdedSpin = absl::Microseconds(2);
// Up to here a second round trip costs more than sending everything to everybody.
constexpr size_t kWholeFloats = 16 * 1024;
// By which RankSlice may exceed an even share.
constexpr size_t kSliceRounding = 32;
// A peer that has said all it had to say in this call may leave after it while the others' bytes are still
// under way; one that left because the call failed is not waited for longer than this.
constexpr absl::Duration kFarewell = absl::Milliseconds(200);
constexpr int64_t kMaxPollMs = 60'000;

absl::Duration SpinFor(int world_size) {
  return sysconf(_SC_NPROCESSORS_ONLN) < world_size ? kCrowdedSpin : kSpin;
}

// Whole partials of every peer where those are exchanged, else parts of one slice, whose bounds are rounded.
size_t IncomingFloats(int world_size, size_t capacity_floats) {
  const size_t peers = static_cast<size_t>(world_size) - 1;
  if (world_size == 2) return capacity_floats;
  const size_t slice = capacity_floats / world_size + kSliceRounding;
  return peers * std::max(slice, std::min(capacity_floats, kWholeFloats));
}

}  // namespace

absl::StatusOr<std::unique_ptr<TcpCollective>> TcpCollective::Create(const TcpMeshOptions& options) {
  LANCET_ASSIGN_OR_RETURN(std::vector<FileDescriptor> sockets, ConnectTcpMesh(options));
  return absl::WrapUnique(new TcpCollective(std::move(sockets), options.rank, options.capacity_floats));
}

TcpCollective::TcpCollective(std::vector<FileDescriptor> sockets, int rank, size_t capacity_floats)
    : rank_(rank),
      world_size_(static_cast<int>(sockets.size())),
      capacity_floats_(capacity_floats),
      spin_(SpinFor(world_size_)),
      sockets_(std::move(sockets)),
      transfers_(world_size_),
      partial_(capacity_floats),
      incoming_(IncomingFloats(world_size_, capacity_floats)),
      result_(capacity_floats) {}

std::string TcpCollective::Describe(const Call& call) {
  switch (call.op) {
    case Op::kAllReduceSum:
      return absl::StrCat("AllReduceSum of ", call.size, " floats");
    case Op::kAllGather:
      return absl::StrCat("AllGather of ", call.size, " bytes per rank");
    case Op::kBroadcast:
      return absl::StrCat("Broadcast of ", call.size, " bytes from rank ", call.root);
    case Op::kBarrier:
      return "Barrier";
  }
  return absl::StrCat("unknown call ", static_cast<uint32_t>(call.op));
}

absl::StatusOr<absl::Span<float>> TcpCollective::PartialSumBuffer(size_t count) {
  LANCET_RETURN_IF_ERROR(Failure());
  if (count > capacity_floats_) {
    return absl::InvalidArgumentError(absl::StrCat(
        "PartialSumBuffer: count ", count, " is above the capacity of ", capacity_floats_, " floats"));
  }
  return absl::MakeSpan(partial_).first(count);
}

absl::StatusOr<absl::Span<const float>> TcpCollective::AllReduceSum(absl::Span<const float> partial,
                                                                    absl::Time deadline) {
  const size_t count = partial.size();
  if (count > capacity_floats_) {
    return Break(absl::InvalidArgumentError(
        absl::StrCat("AllReduceSum: ", count, " floats are above the capacity of ", capacity_floats_)));
  }
  if (count > 0 && partial.data() != partial_.data()) {
    std::memmove(partial_.data(), partial.data(), count * sizeof(float));
  }
  BeginCall(Op::kAllReduceSum, count);
  LANCET_RETURN_IF_ERROR(world_size_ == 2 || count <= kWholeFloats ? SumWhole(count, deadline)
                                                                   : SumSlices(count, deadline));
  return absl::MakeConstSpan(result_).first(count);
}

absl::Status TcpCollective::SumWhole(size_t count, absl::Time deadline) {
  std::array<const float*, kTcpMaxRanks> partials;
  float* next = incoming_.data();
  for (int rank = 0; rank < world_size_; ++rank) {
    partials[rank] = partial_.data();
    if (rank == rank_) continue;
    Transfer& transfer = Begin(rank);
    transfer.out = reinterpret_cast<const std::byte*>(partial_.data());
    transfer.in = reinterpret_cast<std::byte*>(next);
    transfer.out_size = transfer.in_size = count * sizeof(float);
    partials[rank] = next;
    next += count;
  }
  LANCET_RETURN_IF_ERROR(Exchange(/*header=*/true, deadline));
  SumInRankOrder(absl::MakeConstSpan(partials.data(), world_size_), {0, count}, result_.data());
  return absl::OkStatus();
}

absl::Status TcpCollective::SumSlices(size_t count, absl::Time deadline) {
  const SliceRange mine = RankSlice(count, rank_, world_size_);
  const size_t length = mine.end - mine.begin;
  std::array<const float*, kTcpMaxRanks> parts;
  float* next = incoming_.data();
  for (int rank = 0; rank < world_size_; ++rank) {
    parts[rank] = partial_.data() + mine.begin;
    if (rank == rank_) continue;
    const SliceRange theirs = RankSlice(count, rank, world_size_);
    Transfer& transfer = Begin(rank);
    transfer.out = reinterpret_cast<const std::byte*>(partial_.data() + theirs.begin);
    transfer.out_size = (theirs.end - theirs.begin) * sizeof(float);
    transfer.in = reinterpret_cast<std::byte*>(next);
    transfer.in_size = length * sizeof(float);
    parts[rank] = next;
    next += length;
  }
  LANCET_RETURN_IF_ERROR(Exchange(/*header=*/true, deadline));
  float* const sum = result_.data() + mine.begin;
  SumInRankOrder(absl::MakeConstSpan(parts.data(), world_size_), {0, length}, sum);
  for (int rank = 0; rank < world_size_; ++rank) {
    if (rank == rank_) continue;
    const SliceRange theirs = RankSlice(count, rank, world_size_);
    Transfer& transfer = Begin(rank);
    transfer.out = reinterpret_cast<const std::byte*>(sum);
    transfer.out_size = length * sizeof(float);
    transfer.in = reinterpret_cast<std::byte*>(result_.data() + theirs.begin);
    transfer.in_size = (theirs.end - theirs.begin) * sizeof(float);
  }
  return Exchange(/*header=*/false, deadline);
}

absl::Status TcpCollective::AllGather(absl::Span<const std::byte> mine, absl::Span<std::byte> all,
                                      absl::Time deadline) {
  const size_t size = mine.size();
  if (all.size() / world_size_ != size || all.size() % world_size_ != 0) {
    return Break(absl::InvalidArgumentError(absl::StrCat(
        "AllGather: `all` has ", all.size(), " bytes, expected ", world_size_, " ranks * ", size)));
  }
  BeginCall(Op::kAllGather, size);
  if (size > 0) std::memmove(all.data() + rank_ * size, mine.data(), size);
  for (int rank = 0; rank < world_size_; ++rank) {
    if (rank == rank_) continue;
    Transfer& transfer = Begin(rank);
    transfer.out = all.data() + rank_ * size;
    transfer.in = all.data() + rank * size;
    transfer.out_size = transfer.in_size = size;
  }
  return Exchange(/*header=*/true, deadline);
}

absl::Status TcpCollective::Broadcast(absl::Span<std::byte> data, int root, absl::Time deadline) {
  if (root < 0 || root >= world_size_) {
    return Break(absl::InvalidArgumentError(
        absl::StrCat("Broadcast: root ", root, " is outside [0, ", world_size_, ")")));
  }
  BeginCall(Op::kBroadcast, data.size(), root);
  for (int rank = 0; rank < world_size_; ++rank) {
    if (rank == rank_) continue;
    Transfer& transfer = Begin(rank);
    if (rank_ == root) {
      transfer.out = data.data();
      transfer.out_size = data.size();
    } else if (rank == root) {
      transfer.in = data.data();
      transfer.in_size = data.size();
    }
  }
  return Exchange(/*header=*/true, deadline);
}

absl::Status TcpCollective::Barrier(absl::Time deadline) {
  BeginCall(Op::kBarrier, 0);
  for (int rank = 0; rank < world_size_; ++rank) Begin(rank);
  return Exchange(/*header=*/true, deadline);
}

void TcpCollective::Abort(absl::Status reason) {
  Break(reason.ok() ? absl::AbortedError("the collective was aborted") : std::move(reason)).IgnoreError();
}

void TcpCollective::BeginCall(Op op, size_t size, int root) {
  call_ = Call{op, static_cast<uint32_t>(root), size, calls_++};
}

TcpCollective::Transfer& TcpCollective::Begin(int peer) {
  transfers_[peer] = Transfer();
  return transfers_[peer];
}

bool TcpCollective::Finished(const Transfer& transfer, bool header) const {
  const size_t head = header ? sizeof(Call) : 0;
  return transfer.sent == head + transfer.out_size && transfer.received == head + transfer.in_size;
}

absl::Status TcpCollective::Exchange(bool header, absl::Time deadline) {
  LANCET_RETURN_IF_ERROR(Failure());
  // The wall clock may jump while this waits, so the deadline becomes a length once. Capped, as
  // InfiniteFuture has no length.
  const absl::Duration left = std::min(deadline - absl::Now(), absl::Hours(24 * 365));
  const SteadyClock::time_point end = SteadyClock::now() + absl::ToChronoNanoseconds(left);
  SteadyClock::time_point last_move = SteadyClock::now();
  int left_early = rank_;  // the first peer that hung up after its part
  while (true) {
    bool moved = false;
    bool finished = true;
    for (int peer = 0; peer < world_size_; ++peer) {
      if (peer == rank_) continue;
      LANCET_ASSIGN_OR_RETURN(const bool some, Move(peer, header));
      moved = moved || some;
      finished = finished && Finished(transfers_[peer], header);
    }
    if (finished) return absl::OkStatus();
    const SteadyClock::time_point now = SteadyClock::now();
    if (moved) last_move = now;
    const absl::Duration idle = absl::FromChrono(now - last_move);
    if (idle < spin_) continue;
    absl::Duration remaining = absl::FromChrono(end - now);
    if (left_early != rank_) {
      if (idle >= kFarewell) return Gone(left_early, "it left the group");
      remaining = std::min(remaining, kFarewell - idle);
    }
    LANCET_ASSIGN_OR_RETURN(const int hung_up, Sleep(header, left_early == rank_, remaining));
    if (left_early == rank_) left_early = hung_up;
  }
}

absl::StatusOr<int> TcpCollective::Sleep(bool header, bool watch_finished, absl::Duration remaining) {
  const size_t head = header ? sizeof(Call) : 0;
  std::array<pollfd, kTcpMaxRanks> waited;
  std::array<int, kTcpMaxRanks> peers;
  size_t count = 0;
  int missing = rank_;
  for (int peer = 0; peer < world_size_; ++peer) {
    if (peer == rank_) continue;
    const Transfer& transfer = transfers_[peer];
    int16_t events = 0;
    if (transfer.received < head + transfer.in_size) {
      events |= POLLIN;
      if (missing == rank_) missing = peer;
    }
    if (transfer.sent < head + transfer.out_size) events |= POLLOUT;
    if (events == 0) {
      // Nothing is to be heard from it but that it has gone.
      if (!watch_finished) continue;
      events = POLLRDHUP;
    }
    peers[count] = peer;
    waited[count++] = {sockets_[peer].get(), events, 0};
  }
  if (remaining <= absl::ZeroDuration()) {
    return Break(
        absl::DeadlineExceededError(absl::StrCat("rank ", missing, " did not come to the call of rank ",
                                                 rank_, " (", Describe(call_), ") before its deadline")));
  }
  // Break shuts the sockets, which ends a poll at once. Rounded up, so that the last millisecond is not spun.
  const int64_t ms = std::min<int64_t>(absl::ToInt64Milliseconds(remaining) + 1, kMaxPollMs);
  poll(waited.data(), count, static_cast<int>(ms));
  LANCET_RETURN_IF_ERROR(Failure());
  for (size_t i = 0; i < count; ++i) {
    if (waited[i].events == POLLRDHUP && waited[i].revents != 0) return peers[i];
  }
  return rank_;
}

absl::StatusOr<bool> TcpCollective::Move(int peer, bool header) {
  LANCET_ASSIGN_OR_RETURN(const bool sent, Send(peer, header));
  LANCET_ASSIGN_OR_RETURN(const bool received, Receive(peer, header));
  return sent || received;
}

absl::StatusOr<bool> TcpCollective::Send(int peer, bool header) {
  Transfer& transfer = transfers_[peer];
  const size_t head = header ? sizeof(Call) : 0;
  if (transfer.sent == head + transfer.out_size) return false;
  std::array<iovec, 2> parts;
  size_t count = 0;
  if (transfer.sent < head) {
    parts[count++] = {reinterpret_cast<std::byte*>(&call_) + transfer.sent, head - transfer.sent};
  }
  const size_t done = transfer.sent > head ? transfer.sent - head : 0;
  if (done < transfer.out_size) {
    parts[count++] = {const_cast<std::byte*>(transfer.out) + done, transfer.out_size - done};
  }
  msghdr message{};
  message.msg_iov = parts.data();
  message.msg_iovlen = count;
  const ssize_t n = sendmsg(sockets_[peer].get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  if (n < 0) {
    if (errno == EAGAIN || errno == EINTR) return false;
    return Gone(peer, std::strerror(errno));
  }
  transfer.sent += static_cast<size_t>(n);
  return n > 0;
}

absl::StatusOr<bool> TcpCollective::Receive(int peer, bool header) {
  Transfer& transfer = transfers_[peer];
  const size_t head = header ? sizeof(Call) : 0;
  if (transfer.received == head + transfer.in_size) return false;
  const bool in_head = transfer.received < head;
  std::byte* const to = in_head ? reinterpret_cast<std::byte*>(&transfer.header) + transfer.received
                                : transfer.in + (transfer.received - head);
  const size_t want = in_head ? head - transfer.received : head + transfer.in_size - transfer.received;
  const ssize_t n = recv(sockets_[peer].get(), to, want, MSG_DONTWAIT);
  if (n == 0) return Gone(peer, "it left the group");
  if (n < 0) {
    if (errno == EAGAIN || errno == EINTR) return false;
    return Gone(peer, std::strerror(errno));
  }
  transfer.received += static_cast<size_t>(n);
  // Before a byte of what belongs to another call is taken for this one's.
  if (in_head && transfer.received == head && transfer.header != call_) {
    return Break(absl::InternalError(absl::StrCat(
        "the ranks make different calls: rank ", rank_, " ", Describe(call_), " as call ", call_.number,
        ", rank ", peer, " ", Describe(transfer.header), " as call ", transfer.header.number)));
  }
  return true;
}

absl::Status TcpCollective::Check() {
  LANCET_RETURN_IF_ERROR(Failure());
  for (int peer = 0; peer < world_size_; ++peer) {
    if (peer == rank_) continue;
    pollfd entry = {sockets_[peer].get(), POLLRDHUP, 0};
    if (poll(&entry, 1, 0) == 1 && entry.revents != 0) return Gone(peer, "it left the group");
  }
  return absl::OkStatus();
}

absl::Status TcpCollective::Gone(int peer, const std::string& how) {
  return Break(absl::UnavailableError(absl::StrCat("rank ", peer, " is gone: ", how, " (missed by rank ",
                                                   rank_, " in ", Describe(call_), ")")));
}

absl::Status TcpCollective::Break(const absl::Status& reason) {
  {
    const std::lock_guard<std::mutex> lock(mu_);
    if (!failure_.ok()) return failure_;
    failure_ = reason;
  }
  // Wakes this rank's own thread, if another one broke the group, and the peers.
  for (const FileDescriptor& socket : sockets_) {
    if (socket.valid()) shutdown(socket.get(), SHUT_RDWR);
  }
  return reason;
}

absl::Status TcpCollective::Failure() {
  const std::lock_guard<std::mutex> lock(mu_);
  return failure_;
}

}  // namespace lancet
