// What an op runs on: device, instruction set, threads and per-thread scratch. One per rank; every op takes
// it first. CPU only in this build; ops that a device lacks answer Unimplemented.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/thread_pool.h"

namespace lancet {

// Instruction sets that own kernels are built for, weakest first.
enum class CpuIsa { kPortable, kAvx2, kAvx512, kAvx512Bf16 };

absl::string_view CpuIsaName(CpuIsa isa);
// The best one that this machine runs.
CpuIsa DetectCpuIsa();
// Whether it has dot products of bytes (VNNI) as wide as the vectors of `isa`.
bool DetectVnni(CpuIsa isa);
// Whether vdpbf16ps makes more products a second than f32 multiply-adds of widened operands. Not on
// processors with AMX: those of Sapphire Rapids' kind run it at half their f32 rate (79 against 159 GFLOP/s
// of a core; bench/README.md).
bool Bf16DotsAreFast();

struct CpuOptions {
  int threads = 1;
  int nice = 0;                            // lowered priority of compute threads, see ThreadPool
  std::vector<int> cpus = {};              // thread t runs on processor cpus[t] alone; empty: anywhere
  CpuIsa max_isa = CpuIsa::kAvx512Bf16;    // tests lower it; never raised above what the machine has
  bool use_vnni = true;                    // likewise
  bool use_bf16_dots = Bf16DotsAreFast();  // whether own products of bf16 use vdpbf16ps where isa() has it
};

class KernelContext {
 public:
  // InvalidArgument for threads outside 1..1024.
  static absl::StatusOr<std::unique_ptr<KernelContext>> CreateCpu(const CpuOptions& options);

  CpuIsa isa() const { return isa_; }
  // That of own kernels which multiply bf16: isa(), or the one below where its dot products are slower.
  CpuIsa product_isa() const { return product_isa_; }
  bool has_vnni() const { return has_vnni_; }  // at the width of isa()
  ThreadPool& pool() const { return *pool_; }
  // "cpu avx512_bf16 vnni, 2 threads": product_isa(), and what else is used.
  std::string description() const;

  // Scratch of one thread of the pool (64-byte aligned, kScratchBytes long), for panels and tiles within one
  // op.
  static constexpr size_t kScratchBytes =
      size_t{1} << 20;  // an L2's worth: a panel that fell out of it would be re-read
  absl::Span<std::byte> scratch(int thread) const;

  // One buffer of at least `bytes` (64-byte aligned) that all threads of an op share, for inputs repacked
  // once per call. It grows to the largest request seen and stays, so that steady work allocates nothing.
  // Valid until the next call; contents are lost when it grows. ResourceExhausted if memory is out. Like the
  // pool, for one op at a time.
  absl::StatusOr<absl::Span<std::byte>> SharedScratch(size_t bytes) const;

  // Makes the calling thread the one that runs ops: lowers its priority, pins it to the first processor of
  // the options, and keeps oneDNN from starting threads from it (OpenMP's): ops share their work out over
  // pool(), whose threads are bound likewise, and there is no second set. Call once on the engine's thread.
  void BindCallingThread() const;

 private:
  KernelContext() = default;

  CpuIsa isa_ = CpuIsa::kPortable;
  CpuIsa product_isa_ = CpuIsa::kPortable;
  bool has_vnni_ = false;
  int nice_ = 0;
  int first_cpu_ = -1;  // -1: any
  std::unique_ptr<ThreadPool> pool_;
  struct FreeDeleter {
    void operator()(std::byte* p) const;
  };
  std::unique_ptr<std::byte[], FreeDeleter> scratch_;
  // Behind a pointer because ops see a const context: what they scribble here outlives no call.
  struct SharedBuffer {
    std::unique_ptr<std::byte[], FreeDeleter> data;
    size_t bytes = 0;
  };
  std::unique_ptr<SharedBuffer> shared_;
};

}  // namespace lancet
