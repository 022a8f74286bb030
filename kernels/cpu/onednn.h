// What every source that calls oneDNN shares: errors as values, data types, and the two spellings of
// primitive descriptors (2.x builds an operation descriptor first, 3.x does not).
#pragma once

#include <new>
#include <oneapi/dnnl/dnnl.hpp>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/dtype.h"
#include "kernels/kernel_context.h"

namespace lancet {

// Runs `call` and turns what it throws into a Status that begins with describe(), a string naming the
// operation and its shapes.
template <typename Describe, typename Call>
absl::Status CallOneDnn(Describe&& describe, Call&& call) {
  try {
    std::forward<Call>(call)();
    return absl::OkStatus();
  } catch (const dnnl::error& e) {
    const std::string text =
        absl::StrCat(describe(), ": oneDNN: ", e.what(), " (status ", static_cast<int>(e.status), ")");
    return e.status == dnnl_out_of_memory ? absl::ResourceExhaustedError(text) : absl::InternalError(text);
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(absl::StrCat(describe(), ": out of memory"));
  }
}

// The type whose products oneDNN has fast on this machine: kBf16, or kF32 where its bf16 is a scalar loop.
inline DType ProductType(const KernelContext& ctx) {
  return ctx.isa() >= CpuIsa::kAvx512Bf16 ? DType::kBf16 : DType::kF32;
}

// kF32 or kBf16.
inline dnnl::memory::data_type OneDnnType(DType dtype) {
  return dtype == DType::kBf16 ? dnnl::memory::data_type::bf16 : dnnl::memory::data_type::f32;
}

inline dnnl::convolution_forward::primitive_desc ConvolutionDesc(
    const dnnl::engine& engine, const dnnl::memory::desc& src, const dnnl::memory::desc& weights,
    const dnnl::memory::desc& bias, const dnnl::memory::desc& dst, const dnnl::memory::dims& strides,
    const dnnl::memory::dims& pad_begin, const dnnl::memory::dims& pad_end,
    const dnnl::primitive_attr& attributes) {
  constexpr auto kKind = dnnl::prop_kind::forward_inference;
  constexpr auto kAlgorithm = dnnl::algorithm::convolution_direct;
#if DNNL_VERSION_MAJOR >= 3
  return {engine, kKind, kAlgorithm, src, weights, bias, dst, strides, pad_begin, pad_end, attributes};
#else
  const dnnl::convolution_forward::desc op(kKind, kAlgorithm, src, weights, bias, dst, strides, pad_begin,
                                           pad_end);
  return {op, attributes, engine};
#endif
}

inline dnnl::matmul::primitive_desc MatmulDesc(const dnnl::engine& engine, const dnnl::memory::desc& src,
                                               const dnnl::memory::desc& weights,
                                               const dnnl::memory::desc& dst,
                                               const dnnl::primitive_attr& attributes) {
#if DNNL_VERSION_MAJOR >= 3
  return {engine, src, weights, dst, attributes};
#else
  return {dnnl::matmul::desc(src, weights, dst), attributes, engine};
#endif
}

}  // namespace lancet
