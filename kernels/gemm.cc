#include "kernels/gemm.h"

#include <algorithm>
#include <list>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "kernels/cpu/onednn.h"
#include "kernels/shape_check.h"

namespace lancet {
namespace {

using dnnl::memory;

// Primitives kept per layer, one for each number of tokens and type of result. A serving loop alternates
// between a few row counts; oneDNN's own cache (1024 entries for the process) holds the code of evicted ones.
constexpr size_t kMaxPrimitives = 16;

// Weights are laid out for this many tokens; the others take the layout as it is. With bf16 instructions the
// best layout is the same from 1 token to thousands.
constexpr int64_t kLayoutTokens = 64;

std::string Describe(const char* what, int64_t tokens, int64_t rows, int64_t cols) {
  return absl::StrCat("DenseLinear: ", what, " of [", tokens, ", ", cols, "] x [", rows, ", ", cols, "]^T");
}

}  // namespace

// Not thread-safe, like the contexts it runs on: one op at a time.
struct DenseLinear::Impl {
  int64_t rows = 0;
  int64_t cols = 0;
  memory::data_type type = memory::data_type::f32;
  dnnl::engine engine;
  dnnl::stream stream;
  memory weight;
  memory bias;  // f32 [1, rows]; empty without one
  bool has_bias = false;

  struct Primitive {
    int64_t tokens;
    memory::data_type out;
    dnnl::matmul run;
  };
  std::list<Primitive> primitives;  // most recently used first

  static memory::desc Plain(int64_t m, int64_t n, memory::data_type of) {
    return {{m, n}, of, memory::format_tag::ab};
  }

  // Throws dnnl::error.
  dnnl::matmul::primitive_desc Descriptor(int64_t tokens, memory::data_type out,
                                          const memory::desc& weight_desc) const {
    const memory::desc x = Plain(tokens, cols, type);
    const memory::desc y = Plain(tokens, rows, out);
    if (!has_bias) return MatmulDesc(engine, x, weight_desc, y);
    const memory::desc bias_desc({1, rows}, memory::data_type::f32, memory::format_tag::ab);
    return MatmulDesc(engine, x, weight_desc, bias_desc, y);
  }

  // Throws dnnl::error.
  const dnnl::matmul& PrimitiveFor(int64_t tokens, memory::data_type out) {
    const auto found = std::find_if(primitives.begin(), primitives.end(),
                                    [&](const Primitive& p) { return p.tokens == tokens && p.out == out; });
    if (found != primitives.end()) {
      primitives.splice(primitives.begin(), primitives, found);
    } else {
      primitives.push_front({tokens, out, dnnl::matmul(Descriptor(tokens, out, weight.get_desc()))});
      if (primitives.size() > kMaxPrimitives) primitives.pop_back();
    }
    return primitives.front().run;
  }

  // Throws dnnl::error. x: [tokens, cols] of `type`, y: [tokens, rows] of `out`, dense.
  void Execute(int64_t tokens, void* x, memory::data_type out, void* y) {
    std::unordered_map<int, memory> args = {
        {DNNL_ARG_SRC, memory(Plain(tokens, cols, type), engine, x)},
        {DNNL_ARG_WEIGHTS, weight},
        {DNNL_ARG_DST, memory(Plain(tokens, rows, out), engine, y)},
    };
    if (has_bias) args.emplace(DNNL_ARG_BIAS, bias);
    PrimitiveFor(tokens, out).execute(stream, args);
    stream.wait();
  }
};

DenseLinear::DenseLinear(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
DenseLinear::DenseLinear(DenseLinear&&) noexcept = default;
DenseLinear& DenseLinear::operator=(DenseLinear&&) noexcept = default;
DenseLinear::~DenseLinear() = default;

int64_t DenseLinear::rows() const { return impl_->rows; }
int64_t DenseLinear::cols() const { return impl_->cols; }

absl::StatusOr<DenseLinear> DenseLinear::Create(const KernelContext& ctx, ConstMatrixView<bf16> weight,
                                                absl::Span<const bf16> bias) {
  if (weight.cols < 1 || weight.rows < 1) {
    return absl::InvalidArgumentError(absl::StrCat("DenseLinear: weight is [", weight.rows, ", ", weight.cols,
                                                   "]; expected at least [1, 1]"));
  }
  LANCET_RETURN_IF_ERROR(CheckMatrix("DenseLinear", "weight", weight, weight.rows, weight.cols));
  if (!bias.empty()) LANCET_RETURN_IF_ERROR(CheckLength("DenseLinear", "bias", bias.size(), weight.rows));
  auto impl = std::make_unique<Impl>();
  impl->rows = weight.rows;
  impl->cols = weight.cols;
  const bool native = ctx.isa() == CpuIsa::kAvx512Bf16;
  impl->type = native ? memory::data_type::bf16 : memory::data_type::f32;
  impl->has_bias = !bias.empty();
  // oneDNN's weight is [cols, rows]; ours is that, column by column.
  const memory::desc plain({weight.cols, weight.rows}, memory::data_type::bf16,
                           memory::dims{1, weight.stride});
  const auto describe = [&] { return Describe("layout", kLayoutTokens, weight.rows, weight.cols); };
  LANCET_RETURN_IF_ERROR(CallOneDnn(describe, [&] {
    impl->engine = dnnl::engine(dnnl::engine::kind::cpu, 0);
    impl->stream = dnnl::stream(impl->engine);
    if (impl->has_bias) {
      const memory::desc desc({1, weight.rows}, memory::data_type::f32, memory::format_tag::ab);
      impl->bias = memory(desc, impl->engine);
      float* values = static_cast<float*>(impl->bias.get_data_handle());
      for (int64_t i = 0; i < weight.rows; ++i) values[i] = ToFloat(bias[i]);
    }
    const memory::desc any({weight.cols, weight.rows}, impl->type, memory::format_tag::any);
    impl->weight = memory(impl->Descriptor(kLayoutTokens, impl->type, any).weights_desc(), impl->engine);
    memory from(plain, impl->engine, const_cast<bf16*>(weight.data));  // only read
    dnnl::reorder(from, impl->weight).execute(impl->stream, from, impl->weight);
    impl->stream.wait();
  }));
  return DenseLinear(std::move(impl));
}

template <typename T>
absl::Status DenseLinear::Run(const KernelContext& ctx, ConstMatrixView<bf16> x, MatrixView<T> y) const {
  Impl& impl = *impl_;
  LANCET_RETURN_IF_ERROR(CheckMatrix("DenseLinear", "x", x, x.rows, impl.cols));
  LANCET_RETURN_IF_ERROR(CheckMatrix("DenseLinear", "y", y, x.rows, impl.rows));
  if (x.rows == 0) return absl::OkStatus();
  constexpr bool kFloatOut = std::is_same_v<T, float>;
  const bool native = impl.type == memory::data_type::bf16;
  const memory::data_type out = kFloatOut ? memory::data_type::f32 : impl.type;
  const size_t x_element = native ? sizeof(bf16) : sizeof(float);
  const size_t y_element = out == memory::data_type::bf16 ? sizeof(bf16) : sizeof(float);
  const bool copy_x = !native || x.stride != x.cols;
  const bool copy_y = y_element != sizeof(T) || y.stride != y.cols;
  const size_t x_bytes = copy_x ? (static_cast<size_t>(x.rows * x.cols) * x_element + 63) / 64 * 64 : 0;
  const size_t y_bytes = copy_y ? static_cast<size_t>(y.rows * y.cols) * y_element : 0;
  LANCET_ASSIGN_OR_RETURN(absl::Span<std::byte> shared, ctx.SharedScratch(x_bytes + y_bytes));
  // oneDNN takes sources as mutable memory, but writes only to its destination.
  void* x_data = copy_x ? static_cast<void*>(shared.data()) : const_cast<bf16*>(x.data);
  void* y_data = copy_y ? static_cast<void*>(shared.data() + x_bytes) : y.data;
  for (int64_t t = 0; copy_x && t < x.rows; ++t) {
    if (native) {
      std::copy_n(x.row(t), x.cols, static_cast<bf16*>(x_data) + t * x.cols);
    } else {
      std::transform(x.row(t), x.row(t) + x.cols, static_cast<float*>(x_data) + t * x.cols, ToFloat);
    }
  }
  const auto describe = [&] { return Describe("product", x.rows, impl.rows, impl.cols); };
  LANCET_RETURN_IF_ERROR(CallOneDnn(describe, [&] { impl.Execute(x.rows, x_data, out, y_data); }));
  for (int64_t t = 0; copy_y && t < y.rows; ++t) {
    if (y_element == sizeof(T)) {
      std::copy_n(static_cast<const T*>(y_data) + t * y.cols, y.cols, y.row(t));
      continue;
    }
    if constexpr (!kFloatOut) {
      const float* sums = static_cast<const float*>(y_data) + t * y.cols;
      std::transform(sums, sums + y.cols, y.row(t), ToBf16);
    }
  }
  return absl::OkStatus();
}

absl::Status DenseLinear::Forward(const KernelContext& ctx, ConstMatrixView<bf16> x,
                                  MatrixView<bf16> y) const {
  return Run(ctx, x, y);
}

absl::Status DenseLinear::Forward(const KernelContext& ctx, ConstMatrixView<bf16> x,
                                  MatrixView<float> y) const {
  return Run(ctx, x, y);
}

}  // namespace lancet
