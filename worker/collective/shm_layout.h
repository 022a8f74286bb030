// What lies where in the shared memory segment of a group, and the rules by which ranks touch it.
//
//   ShmHeader | ShmRankSlot[world_size] | exchange areas | partial sums, one per rank | result
//
// Ranks move in phases. ShmRankSlot::arrived counts the phases a rank has reached; a rank that has reached
// phase n goes on only when all have. What a rank wrote before it arrived, all may read afterwards. From that
// follows:
// - AllReduceSum has two phases: (1) all partials are written, then each rank writes its slice of the result;
// (2) all
//   slices are written. Partials are read between 1 and 2 only, so a rank that has passed 2 may overwrite its
//   own. The result is written after 1 of the next call only, and by then every rank has entered that call,
//   so nobody reads the old result any more. One area of each kind is enough.
// - A chunk of AllGather or Broadcast has one phase (all have written, then all read), so a fast rank may be
// writing
//   the next chunk while a slow one still reads this one: two exchange areas per rank, taken in turn.
// - Every call has at least one phase, and calls are compared right after the first, so two call slots taken
// in turn
//   are enough by the same argument.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace lancet {

inline constexpr int kShmMaxRanks = 64;
inline constexpr uint64_t kShmMagic =
    0x4d48537465636e4cULL;  // "LncetSHM"; written last, so it also says "ready"
inline constexpr uint32_t kShmVersion = 1;
// Bytes a rank hands over per phase of AllGather and Broadcast; fits twice into a second-level cache.
inline constexpr size_t kShmExchangeBytes = 128 * 1024;
inline constexpr size_t kShmMaxCapacityFloats = size_t{1} << 32;
inline constexpr size_t kShmPageBytes = 4096;
// Two cache lines: neighbouring lines are fetched in pairs, and slots of two ranks must not travel together.
inline constexpr size_t kShmSlotAlignment = 128;

enum class ShmOp : uint32_t { kNone, kForm, kAllReduceSum, kAllGather, kBroadcast, kBarrier };

// A collective call, as far as all ranks must agree on it.
struct ShmCall {
  ShmOp op = ShmOp::kNone;
  uint32_t root = 0;
  uint64_t size = 0;  // AllReduceSum and kForm: floats; AllGather and Broadcast: bytes

  friend bool operator==(const ShmCall&, const ShmCall&) = default;
};

// State of the group: whole, being broken (the reason is being written), broken (the reason can be read).
enum class ShmState : uint32_t { kWhole, kBreaking, kBroken };

struct ShmHeader {
  std::atomic<uint64_t> magic;
  uint32_t version;
  uint32_t world_size;
  uint64_t capacity_floats;
  uint64_t total_bytes;

  alignas(kShmSlotAlignment) std::atomic<ShmState> state;
  int32_t broken_code;  // absl::StatusCode
  uint32_t message_bytes;
  char message[1000];
};

struct alignas(kShmSlotAlignment) ShmRankSlot {
  std::atomic<uint32_t>
      arrived;  // phases reached, wraps around; the futex word of those who wait for this rank
  std::atomic<uint32_t> sleepers;  // ranks that sleep, or are about to, on `arrived`
  std::atomic<uint32_t> departed;  // 1: the rank's object is gone
  std::atomic<int32_t> pid;        // of the rank's process; 0 until it has attached, and for threads
  // ProcessId::pid_namespace of `pid`, written after it: until this is not 0, the peers don't look for the
  // process.
  std::atomic<uint64_t> pid_namespace;
  alignas(kShmSlotAlignment) ShmCall calls[2];
};

static_assert(std::atomic<uint32_t>::is_always_lock_free && std::atomic<int32_t>::is_always_lock_free &&
                  std::atomic<uint64_t>::is_always_lock_free && std::atomic<ShmState>::is_always_lock_free,
              "a lock inside an atomic would not be shared between processes");
static_assert(sizeof(std::atomic<uint32_t>) == 4, "a futex word has 32 bits");

// Byte offsets into the segment; a function of world size and capacity alone.
struct ShmLayout {
  ShmLayout(int world_size, size_t capacity_floats)
      : exchange_offset(RoundUp(sizeof(ShmHeader) + world_size * sizeof(ShmRankSlot))),
        partial_offset(exchange_offset + 2 * world_size * kShmExchangeBytes),
        partial_stride(RoundUp(capacity_floats * sizeof(float))),
        result_offset(partial_offset + world_size * partial_stride),
        total_bytes(result_offset + partial_stride) {}

  static constexpr size_t RoundUp(size_t bytes) {
    return (bytes + kShmPageBytes - 1) / kShmPageBytes * kShmPageBytes;
  }

  size_t exchange_offset;
  size_t partial_offset;
  size_t partial_stride;
  size_t result_offset;
  size_t total_bytes;
};

}  // namespace lancet
