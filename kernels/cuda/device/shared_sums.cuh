// Values that travel to another device together with a tag: eight bytes are written and read at once, so a
// tag that has come means that the value has, and no fence is needed.
#pragma once

#include <cstdint>

namespace lancet::device {

__device__ __forceinline__ uint32_t LoadVolatile(const uint32_t* from) {
  return *static_cast<const volatile uint32_t*>(from);
}

__device__ __forceinline__ void StoreTagged(uint2* to, float value, uint32_t tag) {
  const uint64_t both = static_cast<uint64_t>(tag) << 32 | __float_as_uint(value);
  asm volatile("st.relaxed.sys.global.u64 [%0], %1;" ::"l"(to), "l"(both) : "memory");
}

// Two neighbours, 16-byte aligned: (value, tag, value, tag). Each pair comes at once.
__device__ __forceinline__ uint4 LoadTagged(const uint2* from) {
  uint64_t first;
  uint64_t second;
  asm volatile("ld.relaxed.sys.global.v2.u64 {%0, %1}, [%2];"
               : "=l"(first), "=l"(second)
               : "l"(from)
               : "memory");
  return make_uint4(static_cast<uint32_t>(first), static_cast<uint32_t>(first >> 32),
                    static_cast<uint32_t>(second), static_cast<uint32_t>(second >> 32));
}

}  // namespace lancet::device
