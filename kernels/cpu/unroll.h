// LANCET_UNROLL before a loop over the registers of a tile: sums stay in registers only if it is unrolled.
// Under sanitizers that would make the compiler take minutes for code whose speed is of no interest.
#pragma once

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define LANCET_UNROLL
#else
#define LANCET_UNROLL _Pragma("GCC unroll 16")
#endif
