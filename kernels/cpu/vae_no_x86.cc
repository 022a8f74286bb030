// As no_x86.cc, for the decoder's loops.
#include "common/bf16.h"
#include "kernels/cpu/vae_rows.h"

namespace lancet {

template <typename T>
VaeRows<T> VaeRowsAvx2() {
  return VaeRowsPortable<T>();
}
template <typename T>
VaeRows<T> VaeRowsAvx512() {
  return VaeRowsPortable<T>();
}
template VaeRows<float> VaeRowsAvx2<float>();
template VaeRows<bf16> VaeRowsAvx2<bf16>();
template VaeRows<float> VaeRowsAvx512<float>();
template VaeRows<bf16> VaeRowsAvx512<bf16>();

}  // namespace lancet
