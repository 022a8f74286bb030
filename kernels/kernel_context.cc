#include "kernels/kernel_context.h"

#include <omp.h>

#include <algorithm>
#include <cstdlib>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace lancet {
namespace {

constexpr int kMaxThreads = 1024;
// More than any op repacks: a request beyond it is a mistake, not work.
constexpr size_t kMaxSharedBytes = size_t{1} << 38;
constexpr size_t kAlignment = 64;  // a cache line, and the width of an AVX-512 register

}  // namespace

absl::string_view CpuIsaName(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kPortable:
      return "portable";
    case CpuIsa::kAvx2:
      return "avx2";
    case CpuIsa::kAvx512:
      return "avx512";
    case CpuIsa::kAvx512Bf16:
      return "avx512_bf16";
  }
  return "?";
}

void KernelContext::FreeDeleter::operator()(std::byte* p) const { std::free(p); }

absl::StatusOr<std::unique_ptr<KernelContext>> KernelContext::CreateCpu(const CpuOptions& options) {
  if (options.threads < 1 || options.threads > kMaxThreads) {
    return absl::InvalidArgumentError(
        absl::StrCat("threads is ", options.threads, "; expected 1 to ", kMaxThreads));
  }
  std::unique_ptr<KernelContext> ctx(new KernelContext());
  ctx->isa_ = std::min(DetectCpuIsa(), options.max_isa);
  const bool widen = ctx->isa_ == CpuIsa::kAvx512Bf16 && !options.use_bf16_dots;
  ctx->product_isa_ = widen ? CpuIsa::kAvx512 : ctx->isa_;
  ctx->has_vnni_ = options.use_vnni && DetectVnni(ctx->isa_);
  ctx->nice_ = options.nice;
  const size_t bytes = kScratchBytes * static_cast<size_t>(options.threads);
  ctx->scratch_.reset(static_cast<std::byte*>(std::aligned_alloc(kAlignment, bytes)));
  if (ctx->scratch_ == nullptr) {
    return absl::ResourceExhaustedError(absl::StrCat("no memory for ", bytes, " bytes of kernel scratch"));
  }
  ctx->shared_ = std::make_unique<SharedBuffer>();
  if (!options.cpus.empty()) ctx->first_cpu_ = options.cpus.front();
  ctx->pool_ = std::make_unique<ThreadPool>(options.threads, options.nice, options.cpus);
  // The size of the team that a thread would start is its own setting.
  ctx->pool_->ParallelFor(options.threads, 1, [](int64_t, int64_t, int) { omp_set_num_threads(1); });
  return ctx;
}

std::string KernelContext::description() const {
  const int threads = pool_->num_threads();
  return absl::StrCat("cpu ", CpuIsaName(product_isa_), has_vnni_ ? " vnni" : "", ", ", threads,
                      threads == 1 ? " thread" : " threads");
}

absl::Span<std::byte> KernelContext::scratch(int thread) const {
  return absl::MakeSpan(scratch_.get() + kScratchBytes * static_cast<size_t>(thread), kScratchBytes);
}

absl::StatusOr<absl::Span<std::byte>> KernelContext::SharedScratch(size_t bytes) const {
  if (bytes > kMaxSharedBytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat("an op asks for ", bytes, " bytes of shared scratch; the limit is ", kMaxSharedBytes));
  }
  if (bytes > shared_->bytes) {
    // A quarter more than asked for, so that a slowly growing sequence does not reallocate at every step.
    const size_t wanted = (bytes + bytes / 4 + kAlignment - 1) / kAlignment * kAlignment;
    shared_->bytes = 0;
    shared_->data.reset();
    shared_->data.reset(static_cast<std::byte*>(std::aligned_alloc(kAlignment, wanted)));
    if (shared_->data == nullptr) {
      return absl::ResourceExhaustedError(absl::StrCat("no memory for ", wanted, " bytes of shared scratch"));
    }
    shared_->bytes = wanted;
  }
  return absl::MakeSpan(shared_->data.get(), bytes);
}

void KernelContext::BindCallingThread() const {
  omp_set_num_threads(1);
  LowerThreadPriority(nice_);
  if (first_cpu_ >= 0) PinThreadTo(first_cpu_);
}

}  // namespace lancet
