#include "worker/model/vae/vae_weights.h"

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "common/bf16.h"
#include "common/half.h"
#include "common/status_macros.h"

namespace lancet {
namespace {

// Wider layers than any autoencoder has: beyond this a header is nonsense.
constexpr int64_t kMaxChannels = 16384;
constexpr int64_t kHeadChannels = 12;

// Element i of a tensor of a floating-point type.
float Element(const TensorView& t, int64_t i) {
  switch (t.dtype) {
    case DType::kF32:
      return t.as<float>()[i];
    case DType::kBf16:
      return ToFloat(t.as<bf16>()[i]);
    case DType::kF16:
      return HalfToFloat(t.as<uint16_t>()[i]);
    default:
      return static_cast<float>(t.as<double>()[i]);
  }
}

class Loader {
 public:
  Loader(const KernelContext& ctx, const StateDict& dict) : ctx_(ctx), dict_(dict) {}

  // `in` is the expected number of input channels, 0 for any; likewise `out`. A 3-D kernel gives its last
  // temporal tap.
  absl::StatusOr<Conv2d> Conv(const std::string& prefix, int64_t kernel, int64_t in, int64_t out) const {
    const std::string name = prefix + ".weight";
    LANCET_ASSIGN_OR_RETURN(const TensorView w, Float(name));
    const auto wrong = [&] {
      const auto extent = [](int64_t n) { return n == 0 ? std::string("any") : absl::StrCat(n); };
      return Odd(name, w,
                 absl::StrCat("[", extent(out), ", ", extent(in), ", ", kernel, ", ", kernel,
                              "], or with a temporal extent of 1 or 3 before the last two"));
    };
    const size_t rank = w.shape.size();
    if (rank != 4 && rank != 5) return wrong();
    const int64_t taps = rank == 5 ? w.shape[2] : 1;
    const int64_t area = kernel * kernel;
    if ((taps != 1 && taps != 3) || w.shape[rank - 2] != kernel || w.shape[rank - 1] != kernel ||
        (in != 0 && w.shape[1] != in) || (out != 0 && w.shape[0] != out) || w.shape[0] < 1 ||
        w.shape[1] < 1 || w.shape[0] > kMaxChannels || w.shape[1] > kMaxChannels) {
      return wrong();
    }
    const ConvShape shape{w.shape[0], w.shape[1], kernel, 1};
    std::vector<float> plain(shape.out_channels * shape.in_channels * area);
    for (int64_t oc = 0; oc < shape.out_channels * shape.in_channels; ++oc) {
      const int64_t tap = (oc * taps + taps - 1) * area;
      for (int64_t i = 0; i < area; ++i) plain[oc * area + i] = Element(w, tap + i);
    }
    LANCET_ASSIGN_OR_RETURN(const std::vector<float> bias, Vector(prefix + ".bias", shape.out_channels));
    return Conv2d::Create(ctx_, shape, plain, bias);
  }

  // All of a tensor with `count` elements, whatever its shape.
  absl::StatusOr<std::vector<float>> Vector(const std::string& name, int64_t count) const {
    LANCET_ASSIGN_OR_RETURN(const TensorView t, Float(name));
    if (t.num_elements() != count) return Odd(name, t, absl::StrCat(count, " elements"));
    std::vector<float> values(count);
    for (int64_t i = 0; i < count; ++i) values[i] = Element(t, i);
    return values;
  }

  absl::StatusOr<std::vector<float>> Gamma(const std::string& name, int64_t channels) const {
    LANCET_ASSIGN_OR_RETURN(std::vector<float> gamma, Vector(name, channels));
    if (ActivationType(ctx_) == DType::kBf16) {
      for (float& g : gamma) g = RoundToBf16(g);
    }
    return gamma;
  }

  // `out` 0: any width.
  absl::StatusOr<VaeResBlock> ResBlock(const std::string& prefix, int64_t in, int64_t out) const {
    LANCET_ASSIGN_OR_RETURN(std::vector<float> norm1, Gamma(prefix + ".residual.0.gamma", in));
    LANCET_ASSIGN_OR_RETURN(Conv2d conv1, Conv(prefix + ".residual.2", 3, in, out));
    out = conv1.shape().out_channels;
    LANCET_ASSIGN_OR_RETURN(std::vector<float> norm2, Gamma(prefix + ".residual.3.gamma", out));
    LANCET_ASSIGN_OR_RETURN(Conv2d conv2, Conv(prefix + ".residual.6", 3, out, out));
    std::optional<Conv2d> shortcut;
    if (in != out) {
      LANCET_ASSIGN_OR_RETURN(shortcut, Conv(prefix + ".shortcut", 1, in, out));
    }
    return VaeResBlock{std::move(norm1), std::move(conv1), std::move(norm2), std::move(conv2),
                       std::move(shortcut)};
  }

  absl::StatusOr<VaeAttention> Attention(const std::string& prefix, int64_t channels) const {
    LANCET_ASSIGN_OR_RETURN(std::vector<float> norm, Gamma(prefix + ".norm.gamma", channels));
    LANCET_ASSIGN_OR_RETURN(Conv2d qkv, Conv(prefix + ".to_qkv", 1, channels, 3 * channels));
    LANCET_ASSIGN_OR_RETURN(Conv2d proj, Conv(prefix + ".proj", 1, channels, channels));
    return VaeAttention{std::move(norm), std::move(qkv), std::move(proj)};
  }

  absl::StatusOr<VaeStage> Stage(int index, int64_t in) const {
    const std::string prefix = absl::StrCat("decoder.upsamples.", index, ".upsamples.");
    VaeStage stage;
    stage.frame_factor = index < 2 ? 2 : 1;
    int64_t width = in;
    for (int b = 0; b < 3; ++b) {
      // The first block sets the stage's width.
      LANCET_ASSIGN_OR_RETURN(VaeResBlock block,
                              ResBlock(absl::StrCat(prefix, b), width, b == 0 ? 0 : width));
      width = block.out_channels();
      stage.blocks.push_back(std::move(block));
    }
    if (index + 1 < kVaeStages) {
      LANCET_ASSIGN_OR_RETURN(stage.resample, Conv(prefix + "3.resample.1", 3, width, width));
      if (4 * stage.frame_factor * width % in != 0) {
        return absl::InvalidArgumentError(absl::StrCat(dict_.path(), ": decoder stage ", index, " goes from ",
                                                       in, " to ", width, " channels; its shortcut needs ",
                                                       4 * stage.frame_factor,
                                                       " times the latter to be a multiple of the former"));
      }
    }
    return stage;
  }

 private:
  absl::StatusOr<TensorView> Float(const std::string& name) const {
    LANCET_ASSIGN_OR_RETURN(const TensorView t, dict_.Get(name));
    if (t.dtype != DType::kF32 && t.dtype != DType::kBf16 && t.dtype != DType::kF16 &&
        t.dtype != DType::kF64) {
      return Odd(name, t, "a floating-point type");
    }
    return t;
  }

  absl::Status Odd(const std::string& name, const TensorView& t, const std::string& expected) const {
    return absl::InvalidArgumentError(absl::StrCat(dict_.path(), ": tensor \"", name, "\" is ",
                                                   DTypeName(t.dtype), " ", ShapeString(t.shape),
                                                   "; expected ", expected));
  }

  const KernelContext& ctx_;
  const StateDict& dict_;
};

}  // namespace

absl::StatusOr<VaeDecoderWeights> LoadVaeDecoderWeights(const KernelContext& ctx, const StateDict& dict) {
  const Loader loader(ctx, dict);
  LANCET_ASSIGN_OR_RETURN(Conv2d conv_in, loader.Conv("decoder.conv1", 3, 0, 0));
  const int64_t latent = conv_in.shape().in_channels;
  const int64_t middle = conv_in.shape().out_channels;
  LANCET_ASSIGN_OR_RETURN(Conv2d latent_in, loader.Conv("conv2", 1, latent, latent));
  LANCET_ASSIGN_OR_RETURN(VaeResBlock middle_in, loader.ResBlock("decoder.middle.0", middle, middle));
  LANCET_ASSIGN_OR_RETURN(VaeAttention attention, loader.Attention("decoder.middle.1", middle));
  LANCET_ASSIGN_OR_RETURN(VaeResBlock middle_out, loader.ResBlock("decoder.middle.2", middle, middle));
  std::vector<VaeStage> stages;
  int64_t width = middle;
  for (int i = 0; i < kVaeStages; ++i) {
    LANCET_ASSIGN_OR_RETURN(VaeStage stage, loader.Stage(i, width));
    width = stage.out_channels();
    stages.push_back(std::move(stage));
  }
  LANCET_ASSIGN_OR_RETURN(std::vector<float> head_norm, loader.Gamma("decoder.head.0.gamma", width));
  LANCET_ASSIGN_OR_RETURN(Conv2d head, loader.Conv("decoder.head.2", 3, width, kHeadChannels));
  return VaeDecoderWeights{std::move(latent_in), std::move(conv_in),    std::move(middle_in),
                           std::move(attention), std::move(middle_out), std::move(stages),
                           std::move(head_norm), std::move(head)};
}

}  // namespace lancet
