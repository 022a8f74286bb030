// SpatialAttention: two oneDNN products per chunk of queries, softmax between them. Each thread of the
// context takes chunks of its own.

#include <algorithm>
#include <cmath>
#include <new>
#include <oneapi/dnnl/dnnl.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "kernels/cpu/onednn.h"
#include "kernels/cpu/vae_rows.h"
#include "kernels/spatial_attention.h"

namespace lancet {
namespace {

using dnnl::memory;

// Enough rows to keep the product busy, few enough that a picture of 256 x 256 (256 latents) has work for
// several threads; at 4096 pixels the scores of a chunk take 1 MB.
constexpr int64_t kQueryChunk = 64;

// The two products for `queries` rows.
struct Products {
  int64_t queries = 0;
  dnnl::matmul::primitive_desc scores_desc;
  dnnl::matmul::primitive_desc values_desc;
  dnnl::matmul scores;
  dnnl::matmul values;
};

}  // namespace

struct SpatialAttention::Impl {
  DType type = DType::kF32;  // of the products
  int64_t channels = 0;
  int64_t max_pixels = 0;
  dnnl::engine engine;
  // Of each thread: [kQueryChunk, pixels].
  std::vector<std::unique_ptr<float[]>> scores;
  std::vector<std::unique_ptr<bf16[]>> probabilities;  // only where products are of bf16
  int64_t compiled_pixels = 0;
  Products whole_chunk;
  Products last_chunk;

  Products Compile(int64_t queries, int64_t pixels) const {
    const memory::data_type data = OneDnnType(type);
    const memory::desc q({queries, channels}, data, {3 * channels, 1});
    const memory::desc k_transposed({channels, pixels}, data, {1, 3 * channels});
    const memory::desc s({queries, pixels}, memory::data_type::f32, {pixels, 1});
    const memory::desc p({queries, pixels}, data, {pixels, 1});
    const memory::desc v({pixels, channels}, data, {3 * channels, 1});
    const memory::desc o({queries, channels}, data, {channels, 1});
    // The library's own scratchpad belongs to the thread that compiled the primitive.
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    Products products;
    products.queries = queries;
    products.scores_desc = MatmulDesc(engine, q, k_transposed, s, attributes);
    products.values_desc = MatmulDesc(engine, p, v, o, attributes);
    products.scores = dnnl::matmul(products.scores_desc);
    products.values = dnnl::matmul(products.values_desc);
    return products;
  }

  void CompileFor(int64_t pixels) {
    if (pixels == compiled_pixels) return;
    compiled_pixels = 0;
    if (pixels >= kQueryChunk) whole_chunk = Compile(kQueryChunk, pixels);
    if (pixels % kQueryChunk != 0) last_chunk = Compile(pixels % kQueryChunk, pixels);
    compiled_pixels = pixels;
  }

  // On thread `thread`.
  template <typename T>
  void Chunk(const KernelContext& ctx, const Products& products, const T* q, const T* k, const T* v, T* out,
             int thread) const {
    dnnl::stream stream(engine);
    const int64_t pixels = compiled_pixels;
    float* const s = scores[thread].get();
    T* p = nullptr;
    const auto bind = [&](const memory::desc& desc, const void* data) {
      return memory(desc, engine, const_cast<void*>(data));  // oneDNN's interface knows no const
    };
    products.scores.execute(stream,
                            {{DNNL_ARG_SRC, bind(products.scores_desc.src_desc(), q)},
                             {DNNL_ARG_WEIGHTS, bind(products.scores_desc.weights_desc(), k)},
                             {DNNL_ARG_SCRATCHPAD, memory(products.scores_desc.scratchpad_desc(), engine)},
                             {DNNL_ARG_DST, bind(products.scores_desc.dst_desc(), s)}});
    stream.wait();
    const float scale = 1.0f / std::sqrt(static_cast<float>(channels));
    const VaeRows rows = VaeRowsFor(ctx.isa());
    if constexpr (std::is_same_v<T, bf16>) {
      p = probabilities[thread].get();
      for (int64_t i = 0; i < products.queries; ++i) {
        rows.softmax(s + i * pixels, pixels, scale, p + i * pixels);
      }
    } else {
      p = s;
      for (int64_t i = 0; i < products.queries; ++i) rows.softmax_f32(s + i * pixels, pixels, scale);
    }
    products.values.execute(stream,
                            {{DNNL_ARG_SRC, bind(products.values_desc.src_desc(), p)},
                             {DNNL_ARG_WEIGHTS, bind(products.values_desc.weights_desc(), v)},
                             {DNNL_ARG_SCRATCHPAD, memory(products.values_desc.scratchpad_desc(), engine)},
                             {DNNL_ARG_DST, bind(products.values_desc.dst_desc(), out)}});
    stream.wait();
  }

  absl::Status Forward(const KernelContext& ctx, ConstMapView<bf16> qkv, MapView<bf16> out) {
    const int64_t pixels = qkv.pixels();
    const auto describe = [&] {
      return absl::StrCat("SpatialAttention of ", channels, " channels among ", pixels, " pixels, ",
                          DTypeName(type));
    };
    if (qkv.channels != 3 * channels || out.channels != channels || out.height != qkv.height ||
        out.width != qkv.width || pixels < 1 || pixels > max_pixels) {
      return absl::InvalidArgumentError(absl::StrCat(describe(), ": maps of ", qkv.ShapeString(), " and ",
                                                     out.ShapeString(), " do not fit (at most ", max_pixels,
                                                     " pixels)"));
    }
    LANCET_RETURN_IF_ERROR(CallOneDnn(describe, [&] { CompileFor(pixels); }));
    const VaeRows rows = VaeRowsFor(ctx.isa());
    float* wide = nullptr;     // qkv, where products are of f32
    float* results = nullptr;  // [kQueryChunk, channels] of each thread
    if (type == DType::kF32) {
      const int64_t result_values = ctx.pool().num_threads() * kQueryChunk * channels;
      LANCET_ASSIGN_OR_RETURN(const absl::Span<std::byte> scratch,
                              ctx.SharedScratch((qkv.elements() + result_values) * sizeof(float)));
      wide = reinterpret_cast<float*>(scratch.data());
      results = wide + qkv.elements();
      ctx.pool().ParallelFor(pixels, kQueryChunk, [&](int64_t begin, int64_t end, int) {
        const int64_t first = begin * 3 * channels;
        rows.widen(qkv.data + first, (end - begin) * 3 * channels, wide + first);
      });
    }
    const int64_t chunks = (pixels + kQueryChunk - 1) / kQueryChunk;
    std::vector<absl::Status> statuses(scores.size());
    ctx.pool().ParallelFor(chunks, 1, [&](int64_t first, int64_t last, int thread) {
      for (int64_t chunk = first; chunk < last && statuses[thread].ok(); ++chunk) {
        const int64_t begin = chunk * kQueryChunk;
        const Products& products = pixels - begin >= kQueryChunk ? whole_chunk : last_chunk;
        bf16* const to = out.data + begin * channels;
        statuses[thread] = CallOneDnn(describe, [&] {
          if (type == DType::kBf16) {
            Chunk(ctx, products, qkv.data + begin * 3 * channels, qkv.data + channels,
                  qkv.data + 2 * channels, to, thread);
            return;
          }
          float* const sums = results + thread * kQueryChunk * channels;
          Chunk<float>(ctx, products, wide + begin * 3 * channels, wide + channels, wide + 2 * channels, sums,
                       thread);
          rows.round(sums, products.queries * channels, false, to);
        });
      }
    });
    for (absl::Status& status : statuses) LANCET_RETURN_IF_ERROR(status);
    return absl::OkStatus();
  }
};

absl::StatusOr<SpatialAttention> SpatialAttention::Create(const KernelContext& ctx, int64_t channels,
                                                          int64_t max_pixels) {
  if (channels < 1 || max_pixels < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("SpatialAttention: ", channels, " channels, ", max_pixels, " pixels"));
  }
  auto impl = std::make_unique<Impl>();
  impl->type = ProductType(ctx);
  impl->channels = channels;
  impl->max_pixels = max_pixels;
  LANCET_RETURN_IF_ERROR(
      CallOneDnn([&] { return absl::StrCat("SpatialAttention for ", max_pixels, " pixels"); },
                 [&] {
                   impl->engine = dnnl::engine(dnnl::engine::kind::cpu, 0);
                   const int64_t values = std::min(kQueryChunk, max_pixels) * max_pixels;
                   for (int thread = 0; thread < ctx.pool().num_threads(); ++thread) {
                     impl->scores.emplace_back(new float[values]);
                     if (impl->type == DType::kBf16) impl->probabilities.emplace_back(new bf16[values]);
                   }
                 }));
  return SpatialAttention(std::move(impl));
}

SpatialAttention::SpatialAttention(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
SpatialAttention::SpatialAttention(SpatialAttention&&) noexcept = default;
SpatialAttention& SpatialAttention::operator=(SpatialAttention&&) noexcept = default;
SpatialAttention::~SpatialAttention() = default;

absl::Status SpatialAttention::Forward(const KernelContext& ctx, ConstMapView<bf16> qkv, MapView<bf16> out) {
  return impl_->Forward(ctx, qkv, out);
}

}  // namespace lancet
