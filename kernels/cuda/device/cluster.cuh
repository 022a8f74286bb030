// Blocks that run at the same time and read each other's shared memory (sm_90 and later). Elsewhere a cluster
// is one block.
#pragma once

#include "kernels/cuda/device/mma.cuh"

namespace lancet::device {

// A barrier over all threads of the cluster; what they wrote to shared memory before it is visible after it.
__device__ __forceinline__ void SyncCluster() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#else
  __syncthreads();
#endif
}

// *p as block `rank` of the cluster has it. p: shared memory.
__device__ __forceinline__ float LoadOfBlock(const float* p, int rank) {
#if __CUDA_ARCH__ >= 900
  uint32_t address;
  float value;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(address) : "r"(SharedAddress(p)), "r"(rank));
  asm volatile("ld.shared::cluster.f32 %0, [%1];" : "=f"(value) : "r"(address) : "memory");
  return value;
#else
  return *p;
#endif
}

}  // namespace lancet::device
