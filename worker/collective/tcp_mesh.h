// The connections of one epoch between ranks of several hosts: one socket per pair.
//
// Rank i dials every rank below it. Either end proves that it knows the epoch's key, which the coordinator
// gave to the ranks of this epoch alone:
//   dialler   Hello  magic, version, rank, world_size, epoch, capacity, nonce
//   acceptor  Reply  nonce, HMAC-SHA256(key, "accept" Hello Reply's nonce)
//   dialler   Proof  HMAC-SHA256(key, "dial" Hello Reply's nonce)
// What is said afterwards is neither encrypted nor signed, as with NCCL: the network between the hosts of a
// group must be trusted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "worker/collective/file_descriptor.h"
#include "worker/collective/tcp_listener.h"

namespace lancet {

inline constexpr int kTcpMaxRanks = 64;
inline constexpr size_t kTcpMinKeyBytes = 16;

struct TcpMeshOptions {
  std::vector<std::string> addresses;  // of every rank, as TcpListener::address() gives them
  std::string key;                     // at least kTcpMinKeyBytes that nobody else can know
  uint64_t epoch = 0;
  int rank = 0;
  uint64_t capacity_floats = 0;  // must agree
  TcpListener* listener = nullptr;
  absl::Time deadline = absl::InfinitePast();
  // Looked at every few milliseconds: true gives up (Cancelled). May be empty.
  std::function<bool()> cancelled = nullptr;
};

// Sockets by rank, non-blocking, without delay; that of the rank itself is not valid. InvalidArgument for bad
// options, DeadlineExceeded naming a rank that did not come, Cancelled, Unavailable.
absl::StatusOr<std::vector<FileDescriptor>> ConnectTcpMesh(const TcpMeshOptions& options);

}  // namespace lancet
