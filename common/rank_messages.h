// What the coordinator and a rank say to each other (lancet.v1 worker.proto), as plain structs. The proto's
// header comment has the conversation; protos/convert.h maps these to messages and checks them.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "common/request_plan.h"

namespace lancet {

// Rank to coordinator.

// Must come first, once per stream.
struct RegisterMessage {
  std::string group;
  int32_t rank = 0;
  int32_t world_size = 1;
  std::string fingerprint;  // of the checkpoint, see Checkpoint::fingerprint()
  std::string device;       // for people
  std::string host;         // ranks that agree share memory
  // Where ranks of other hosts reach this one for collectives, "10.0.0.3:41234"; empty if they can't.
  std::string collective_address;
  int64_t max_latents = 0;
  int32_t pid = 0;
  int64_t max_rows = 0;      // of a packed pass
  int64_t cache_tokens = 0;  // tokens whose keys and values this rank has memory for, over all requests
  bool has_vision = false;   // can execute kEncodeVision
  int32_t max_requests = 0;  // admitted at the same time
  int64_t max_patches = 0;   // largest vision_image, in patches of the tower; 0 without one
  // Ranks that compute alike, to the bit, say the same: "cpu avx512_bf16 w4a16".
  std::string numerics{};
};
// The rank has joined the epoch and is warm.
struct ReadyMessage {
  uint64_t epoch = 0;
};
// Command `number` was executed; results only after an IterateCommand, in the order of its work.
struct DoneMessage {
  uint64_t epoch = 0;
  uint64_t number = 0;
  std::vector<WorkResult> results;
};
// The epoch is over for this rank.
struct FaultMessage {
  uint64_t epoch = 0;
  std::string reason;
};
struct PongMessage {
  uint64_t id = 0;
};
// The rank was told to end; it stays until it is answered with Shutdown, at most for `grace`.
struct LeavingMessage {
  double grace_seconds = 0;
};
using RankMessage =
    std::variant<RegisterMessage, ReadyMessage, DoneMessage, FaultMessage, PongMessage, LeavingMessage>;

// Coordinator to rank.

struct FormMessage {
  uint64_t epoch = 0;  // greater than every one before
  std::string
      segment;  // name of the shared memory segment; rank 0 creates it. The key of ranks that meet over TCP
  int32_t world_size = 1;
  std::vector<std::string> collective_addresses;  // by rank, where ranks are on several hosts; else empty
};
struct CommandMessage {
  uint64_t epoch = 0;
  uint64_t number = 0;  // 1, 2, 3, ... within an epoch
  std::variant<AdmitCommand, IterateCommand, ReleaseCommand> command;
};
struct AbortMessage {
  uint64_t epoch = 0;
  std::string reason;
};
struct PingMessage {
  uint64_t id = 0;
};
struct RefuseMessage {
  std::string reason;
  bool permanent = false;  // trying again cannot help
};
struct ShutdownMessage {};
using CoordinatorMessage =
    std::variant<FormMessage, CommandMessage, AbortMessage, PingMessage, RefuseMessage, ShutdownMessage>;

}  // namespace lancet
