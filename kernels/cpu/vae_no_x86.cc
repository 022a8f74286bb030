// As no_x86.cc, for the decoder's loops.
#include "kernels/cpu/vae_rows.h"

namespace lancet {

VaeRows VaeRowsAvx2() { return VaeRowsPortable(); }
VaeRows VaeRowsAvx512() { return VaeRowsPortable(); }

}  // namespace lancet
