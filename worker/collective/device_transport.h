// How the devices of a group reach each other (worker/collective/device).
#pragma once

namespace lancet {

// By kernels that read the peers' memory (one host, devices that can address each other's memory), or through
// NCCL. kAuto: the first, or else the second.
enum class DeviceTransport { kAuto, kPeerMemory, kNccl };

}  // namespace lancet
