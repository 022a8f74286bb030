// Conv2d through oneDNN. Weights are kept once, in the layout that the primitive for the last map size asked
// for; the layout hardly ever depends on the size (a narrower output block for very small maps), and when it
// does the weights are repacked in place of the old ones, so memory stays at one copy.
//
// Where products are of f32, weights are kept in bf16 all the same and widened for each call, and the map is
// worked on in runs of rows: their input is widened, the sums are rounded into the result, and only so much
// lies there in f32.
//
// Threads are the context's: each computes a run of output rows by a primitive of its own, and oneDNN starts
// none (KernelContext sees to that). An output pixel is the same sum however rows are shared out.

#include <algorithm>
#include <oneapi/dnnl/dnnl.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "common/thread_pool.h"
#include "kernels/conv.h"
#include "kernels/cpu/onednn.h"
#include "kernels/cpu/vae_rows.h"

namespace lancet {
namespace {

using dnnl::memory;

// A stripwise pass over one map uses up to four map sizes (first size, last size, with and without sum), each
// shared out in up to four different parts (the first, the last, and inner ones of two heights); two map
// sizes in turn.
constexpr size_t kMaxPrimitives = 32;

// Multiply-adds that make a part worth handing to a thread: some 10 us.
constexpr int64_t kMinPartMacs = 200'000;

// How much of a convolution's input and output is in f32 at a time, where products are of f32: enough that
// weights are seldom read again (38 MB for 1024 channels), and little beside the maps of a large picture.
constexpr int64_t kWidenedBytes = 24 << 20;

// Elements that make a share of an element-wise pass worth handing to a thread.
constexpr int64_t kMinElements = 65536;

// The map size for which weights are packed at first: an ordinary picture.
constexpr int64_t kTypicalSide = 32;

struct Key {
  int64_t height = 0;
  int64_t width = 0;
  ConvPadding padding;
  bool accumulate = false;
  friend bool operator==(const Key&, const Key&) = default;
};

struct Compiled {
  Key key;
  memory::desc src;
  memory::desc dst;
  memory::desc scratchpad;
  dnnl::convolution_forward primitive;
};

// Rows [out_begin, out_end) of the result, and what of the input they see.
struct Part {
  int64_t out_begin = 0;
  int64_t out_end = 0;
  int64_t in_begin = 0;
  Key key;
};

int64_t OutExtent(int64_t extent, int64_t before, int64_t after, const ConvShape& shape) {
  return (extent + before + after - shape.kernel) / shape.stride + 1;
}

// `whole` cut into at most `most` runs of output rows.
std::vector<Part> Cut(const Key& whole, const ConvShape& shape, int64_t most) {
  const ConvPadding& pad = whole.padding;
  const int64_t rows = OutExtent(whole.height, pad.top, pad.bottom, shape);
  const int64_t columns = OutExtent(whole.width, pad.left, pad.right, shape);
  const int64_t row_macs = columns * shape.out_channels * shape.in_channels * shape.kernel * shape.kernel;
  const int64_t fewest = std::max<int64_t>(1, kMinPartMacs / std::max<int64_t>(1, row_macs));
  const int64_t count = std::clamp<int64_t>(rows / fewest, 1, std::min(most, rows));
  std::vector<Part> parts;
  for (int64_t i = 0; i < count; ++i) {
    Part part;
    part.out_begin = rows * i / count;
    part.out_end = rows * (i + 1) / count;
    // In rows of the padded input.
    const int64_t first = part.out_begin * shape.stride;
    const int64_t last = (part.out_end - 1) * shape.stride + shape.kernel;
    part.in_begin = std::max<int64_t>(0, first - pad.top);
    const int64_t in_end = std::min(whole.height, last - pad.top);
    part.key = whole;
    part.key.height = in_end - part.in_begin;
    part.key.padding.top = std::max<int64_t>(0, pad.top - first);
    part.key.padding.bottom = std::max<int64_t>(0, last - pad.top - whole.height);
    // A part that would see padding alone: let one thread do all.
    if (part.key.height < 1) return Cut(whole, shape, 1);
    parts.push_back(part);
  }
  return parts;
}

}  // namespace

struct Conv2d::Impl {
  const KernelContext* ctx = nullptr;
  ConvShape shape;
  DType type = DType::kF32;  // of the products
  dnnl::engine engine;
  dnnl::stream stream;
  memory::desc layout;       // of the weights, in `type`
  memory weights;            // where products are of bf16
  std::vector<bf16> packed;  // elsewhere: the weights in the order of `layout`
  memory bias;
  std::vector<Compiled> compiled;  // least recently used first

  std::string Describe(const Key& key) const {
    return absl::StrCat("Conv2d ", shape.in_channels, " -> ", shape.out_channels, " channels, ", shape.kernel,
                        "x", shape.kernel, ", stride ", shape.stride, ", on [", key.height, ", ", key.width,
                        "] ", DTypeName(type));
  }

  dnnl::convolution_forward::primitive_desc PrimitiveDesc(const Key& key) const {
    const memory::data_type data = OneDnnType(type);
    const ConvPadding& pad = key.padding;
    const memory::desc src({1, shape.in_channels, key.height, key.width}, data, memory::format_tag::nhwc);
    const memory::desc dst({1, shape.out_channels, OutExtent(key.height, pad.top, pad.bottom, shape),
                            OutExtent(key.width, pad.left, pad.right, shape)},
                           data, memory::format_tag::nhwc);
    const memory::desc any_weights({shape.out_channels, shape.in_channels, shape.kernel, shape.kernel}, data,
                                   memory::format_tag::any);
    dnnl::primitive_attr attributes;
    // The library's own scratchpad belongs to the thread that compiled the primitive.
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    if (key.accumulate) {
      dnnl::post_ops sum;
      sum.append_sum(1.0f);
      attributes.set_post_ops(sum);
    }
    return ConvolutionDesc(engine, src, any_weights, bias.get_desc(), dst, {shape.stride, shape.stride},
                           {pad.top, pad.left}, {pad.bottom, pad.right}, attributes);
  }

  // Makes the weights lie as `wanted` says.
  void Repack(const memory::desc& wanted) {
    if (layout == wanted) return;
    if (type == DType::kBf16) {
      Take(weights, wanted);
    } else {
      memory old(layout, engine);
      VaeRowsFor(ctx->isa())
          .widen(packed.data(), Elements(layout), static_cast<float*>(old.get_data_handle()));
      Take(old, wanted);
    }
    compiled.clear();  // they read the old layout
  }

  // The same with the weights of `from`.
  void Take(memory& from, const memory::desc& wanted) {
    memory reordered(wanted, engine);
    dnnl::reorder(from, reordered).execute(stream, from, reordered);
    stream.wait();
    layout = wanted;
    if (type == DType::kBf16) {
      weights = std::move(reordered);
      return;
    }
    packed.resize(Elements(layout));
    VaeRowsFor(ctx->isa())
        .round(static_cast<const float*>(reordered.get_data_handle()), Elements(layout), false,
               packed.data());
  }

  static int64_t Elements(const memory::desc& f32) {
    return static_cast<int64_t>(f32.get_size() / sizeof(float));
  }

  // Elements that the weights may take in any layout: oneDNN pads channels to blocks of at most 64.
  int64_t MaxElements() const {
    const auto padded = [](int64_t channels) { return (channels + 63) / 64 * 64; };
    return padded(shape.out_channels) * padded(shape.in_channels) * shape.kernel * shape.kernel;
  }

  // The weights in f32 for the length of a call.
  struct WidenedWeights {
    float* data = nullptr;  // MaxElements()
    memory::desc layout;    // in which they lie there; of nothing at first
  };

  // The weights as the primitives read them. widened: where products are of f32.
  absl::StatusOr<memory> Weights(WidenedWeights* widened) {
    if (type == DType::kBf16) return weights;
    if (widened->layout != layout) {
      if (Elements(layout) > MaxElements()) {
        return absl::InternalError(absl::StrCat("Conv2d: weights packed to ", layout.get_size(), " bytes"));
      }
      const VaeRows rows = VaeRowsFor(ctx->isa());
      ctx->pool().ParallelFor(Elements(layout), kMinElements, [&](int64_t begin, int64_t end, int) {
        rows.widen(packed.data() + begin, end - begin, widened->data + begin);
      });
      widened->layout = layout;
    }
    return memory(layout, engine, widened->data);
  }

  const Compiled* Recall(const Key& key) {
    const auto found =
        std::find_if(compiled.begin(), compiled.end(), [&](const Compiled& c) { return c.key == key; });
    if (found == compiled.end()) return nullptr;
    std::rotate(found, found + 1, compiled.end());
    return &compiled.back();
  }

  // Primitives for every part, or none if they do not agree on the layout of the weights.
  std::vector<Compiled> Find(const std::vector<Part>& parts) {
    std::vector<Compiled> found;
    for (const Part& part : parts) {
      if (const Compiled* known = Recall(part.key)) {
        found.push_back(*known);
        continue;
      }
      const auto desc = PrimitiveDesc(part.key);
      if (layout != desc.weights_desc()) {
        if (parts.size() > 1) return {};
        Repack(desc.weights_desc());
      }
      if (compiled.size() == kMaxPrimitives) compiled.erase(compiled.begin());
      compiled.push_back({part.key, desc.src_desc(), desc.dst_desc(), desc.scratchpad_desc(),
                          dnnl::convolution_forward(desc)});
      found.push_back(compiled.back());
    }
    return found;
  }

  template <typename T>
  void Run(const Part& part, const Compiled& c, const memory& w, ConstMapView<T> x, MapView<T> y) const {
    dnnl::stream mine(engine);
    const memory scratchpad(c.scratchpad, engine);
    // oneDNN's interface knows no const; it only reads the source.
    T* from = const_cast<T*>(x.row(part.in_begin));
    c.primitive.execute(mine, {{DNNL_ARG_SRC, memory(c.src, engine, from)},
                               {DNNL_ARG_WEIGHTS, w},
                               {DNNL_ARG_BIAS, bias},
                               {DNNL_ARG_SCRATCHPAD, scratchpad},
                               {DNNL_ARG_DST, memory(c.dst, engine, y.row(part.out_begin))}});
    mine.wait();
  }

  // Shares the rows of y out over the threads. widened: as of Weights.
  template <typename T>
  absl::Status Multiply(const Key& key, ConstMapView<T> x, MapView<T> y, WidenedWeights* widened) {
    std::vector<Part> parts = Cut(key, shape, ctx->pool().num_threads());
    std::vector<Compiled> primitives;
    LANCET_RETURN_IF_ERROR(CallOneDnn([&] { return Describe(key); },
                                      [&] {
                                        primitives = Find(parts);
                                        if (!primitives.empty()) return;
                                        parts = Cut(key, shape, 1);
                                        primitives = Find(parts);
                                      }));
    LANCET_ASSIGN_OR_RETURN(const memory w, Weights(widened));
    std::vector<absl::Status> statuses(parts.size());
    ctx->pool().ParallelFor(static_cast<int64_t>(parts.size()), 1, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        statuses[i] = CallOneDnn([&] { return Describe(parts[i].key); },
                                 [&] { Run(parts[i], primitives[i], w, x, y); });
      }
    });
    for (absl::Status& status : statuses) LANCET_RETURN_IF_ERROR(status);
    return absl::OkStatus();
  }

  absl::Status MultiplyWidened(Key key, ConstMapView<bf16> x, MapView<bf16> y) {
    const bool accumulate = std::exchange(key.accumulate, false);
    const int64_t bytes = (x.elements() + y.elements()) * static_cast<int64_t>(sizeof(float));
    const std::vector<Part> runs = Cut(key, shape, (bytes + kWidenedBytes - 1) / kWidenedBytes);
    int64_t most = 0;  // elements of a run
    for (const Part& run : runs) {
      most = std::max(most,
                      run.key.height * x.row_elements() + (run.out_end - run.out_begin) * y.row_elements());
    }
    LANCET_ASSIGN_OR_RETURN(const absl::Span<std::byte> scratch,
                            ctx->SharedScratch((MaxElements() + most) * sizeof(float)));
    WidenedWeights widened_weights{reinterpret_cast<float*>(scratch.data()), {}};
    const VaeRows rows = VaeRowsFor(ctx->isa());
    for (const Part& run : runs) {
      const ConstMapView<bf16> from = x.Rows(run.in_begin, run.key.height);
      const MapView<bf16> to = y.Rows(run.out_begin, run.out_end - run.out_begin);
      const MapView<float> widened(widened_weights.data + MaxElements(), from.height, from.width,
                                   from.channels);
      const MapView<float> sums(widened.data + widened.elements(), to.height, to.width, to.channels);
      ctx->pool().ParallelFor(from.elements(), kMinElements, [&](int64_t begin, int64_t end, int) {
        rows.widen(from.data + begin, end - begin, widened.data + begin);
      });
      LANCET_RETURN_IF_ERROR(Multiply<float>(run.key, widened, sums, &widened_weights));
      ctx->pool().ParallelFor(to.elements(), kMinElements, [&](int64_t begin, int64_t end, int) {
        rows.round(sums.data + begin, end - begin, accumulate, to.data + begin);
      });
    }
    return absl::OkStatus();
  }

  absl::Status Forward(ConstMapView<bf16> x, const ConvPadding& padding, bool accumulate, MapView<bf16> y) {
    const Key key{x.height, x.width, padding, accumulate};
    for (const int64_t pad : {padding.top, padding.left, padding.bottom, padding.right}) {
      if (pad < 0 || pad > 2) {
        return absl::InvalidArgumentError(absl::StrCat(Describe(key), ": padding ", pad, " is outside 0..2"));
      }
    }
    const bool large_enough = x.height + padding.top + padding.bottom >= shape.kernel &&
                              x.width + padding.left + padding.right >= shape.kernel && x.height >= 1 &&
                              x.width >= 1;
    if (!large_enough || x.channels != shape.in_channels || y.channels != shape.out_channels ||
        y.height != OutExtent(x.height, padding.top, padding.bottom, shape) ||
        y.width != OutExtent(x.width, padding.left, padding.right, shape)) {
      return absl::InvalidArgumentError(absl::StrCat(Describe(key), ": maps of ", x.ShapeString(), " and ",
                                                     y.ShapeString(), " do not fit"));
    }
    return type == DType::kBf16 ? Multiply<bf16>(key, x, y, nullptr) : MultiplyWidened(key, x, y);
  }
};

absl::StatusOr<Conv2d> Conv2d::Create(const KernelContext& ctx, const ConvShape& shape,
                                      absl::Span<const float> weight, absl::Span<const float> bias) {
  const int64_t taps = shape.kernel * shape.kernel;
  if ((shape.kernel != 1 && shape.kernel != 3) || (shape.stride != 1 && shape.stride != 2) ||
      shape.out_channels < 1 || shape.in_channels < 1) {
    return absl::InvalidArgumentError(absl::StrCat("Conv2d: no support for ", shape.in_channels, " -> ",
                                                   shape.out_channels, " channels, kernel ", shape.kernel,
                                                   ", stride ", shape.stride));
  }
  if (static_cast<int64_t>(weight.size()) != shape.out_channels * shape.in_channels * taps ||
      static_cast<int64_t>(bias.size()) != shape.out_channels) {
    return absl::InvalidArgumentError(absl::StrCat("Conv2d: ", weight.size(), " weights and ", bias.size(),
                                                   " biases for ", shape.in_channels, " -> ",
                                                   shape.out_channels, " channels and ", taps, " taps"));
  }
  auto impl = std::make_unique<Impl>();
  impl->ctx = &ctx;
  impl->shape = shape;
  impl->type = ProductType(ctx);
  const int64_t pad = shape.kernel / 2;
  const Key typical{kTypicalSide, kTypicalSide, {pad, pad, pad, pad}, false};
  LANCET_RETURN_IF_ERROR(
      CallOneDnn([&] { return impl->Describe(typical); },
                 [&] {
                   impl->engine = dnnl::engine(dnnl::engine::kind::cpu, 0);
                   impl->stream = dnnl::stream(impl->engine);
                   const auto f32 = memory::data_type::f32;
                   impl->bias = memory({{shape.out_channels}, f32, memory::format_tag::x}, impl->engine);
                   float* bias_out = static_cast<float*>(impl->bias.get_data_handle());
                   std::transform(bias.begin(), bias.end(), bias_out, RoundToBf16);
                   memory plain({{shape.out_channels, shape.in_channels, shape.kernel, shape.kernel},
                                 f32,
                                 memory::format_tag::oihw},
                                impl->engine, const_cast<float*>(weight.data()));
                   impl->Take(plain, impl->PrimitiveDesc(typical).weights_desc());
                 }));
  return Conv2d(std::move(impl));
}

Conv2d::Conv2d(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Conv2d::Conv2d(Conv2d&&) noexcept = default;
Conv2d& Conv2d::operator=(Conv2d&&) noexcept = default;
Conv2d::~Conv2d() = default;

const ConvShape& Conv2d::shape() const { return impl_->shape; }

absl::Status Conv2d::Forward(ConstMapView<bf16> x, const ConvPadding& padding, bool accumulate,
                             MapView<bf16> y) {
  return impl_->Forward(x, padding, accumulate, y);
}

}  // namespace lancet
