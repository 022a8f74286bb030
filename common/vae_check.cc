#include "common/vae_check.h"

#include <algorithm>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/model_config.h"
#include "common/quote.h"
#include "common/status_macros.h"

namespace lancet {
namespace {

// A picture is folded 2 x 2 into 12 channels before the encoder and unfolded after the decoder.
constexpr int64_t kFoldedChannels = 12;
// Means and log-variances.
constexpr int64_t kMomentChannels = 2 * kLatentChannels;

// Walks the network in its order, tracking the channel count. An extent of kAny in an expected shape is taken
// from the tensor.
class VaeChecker {
 public:
  explicit VaeChecker(const StateDict& vae) : vae_(vae) {}

  // Temporal extent of the 3 x 3 x 3 kernels: 3, or 1 in an image-only file.
  absl::Status ReadTemporalExtent(absl::string_view conv) {
    const std::string name = absl::StrCat(conv, ".weight");
    LANCET_ASSIGN_OR_RETURN(const TensorView weight, Find(name));
    if (weight.shape.size() != 5 || (weight.shape[2] != 1 && weight.shape[2] != 3)) {
      return Error(name, absl::StrCat("has shape ", ShapeString(weight.shape),
                                      "; expected [out, in, 3, 3, 3] or [out, in, 1, 3, 3]"));
    }
    taps_ = weight.shape[2];
    return absl::OkStatus();
  }
  bool image_only() const { return taps_ == 1; }

  absl::Status CheckDecoder() {
    LANCET_RETURN_IF_ERROR(Conv3d("conv2", kLatentChannels, kLatentChannels, 1).status());
    LANCET_ASSIGN_OR_RETURN(int64_t width, Conv3d("decoder.conv1", kAny, kLatentChannels, 3));
    LANCET_RETURN_IF_ERROR(Middle("decoder.middle", width));
    for (int stage = 0; stage < 4; ++stage) {
      const std::string prefix = absl::StrCat("decoder.upsamples.", stage, ".upsamples.");
      const int64_t stage_in = width;
      for (int block = 0; block < 3; ++block) {
        LANCET_ASSIGN_OR_RETURN(width, ResBlock(absl::StrCat(prefix, block), width));
      }
      if (stage == 3) break;
      const bool temporal = stage < 2;
      LANCET_RETURN_IF_ERROR(Resample(absl::StrCat(prefix, 3), width, temporal ? 2 * width : 0));
      // The stage's shortcut repeats each input channel width * ft * 4 / stage_in times.
      if ((width * (temporal ? 8 : 4)) % stage_in != 0) {
        return absl::InvalidArgumentError(absl::StrCat(vae_.path(), ": decoder stage ", stage, " goes from ",
                                                       stage_in, " to ", width,
                                                       " channels, which no shortcut can do"));
      }
    }
    LANCET_RETURN_IF_ERROR(Tensor("decoder.head.0.gamma", {width, 1, 1, 1}).status());
    return Conv3d("decoder.head.2", kFoldedChannels, width, 3).status();
  }

  absl::Status CheckEncoder() {
    LANCET_ASSIGN_OR_RETURN(int64_t width, Conv3d("encoder.conv1", kAny, kFoldedChannels, 3));
    for (int stage = 0; stage < 4; ++stage) {
      const std::string prefix = absl::StrCat("encoder.downsamples.", stage, ".downsamples.");
      const int64_t stage_in = width;
      for (int block = 0; block < 2; ++block) {
        LANCET_ASSIGN_OR_RETURN(width, ResBlock(absl::StrCat(prefix, block), width));
      }
      const bool temporal = stage == 1 || stage == 2;
      if (stage < 3) LANCET_RETURN_IF_ERROR(Resample(absl::StrCat(prefix, 2), width, temporal ? width : 0));
      // The stage's shortcut averages stage_in * ft * fs^2 / width values.
      const int64_t folded = stage_in * (stage == 3 ? 1 : (temporal ? 8 : 4));
      if (folded % width != 0 || (stage == 3 && stage_in != width)) {
        return absl::InvalidArgumentError(absl::StrCat(vae_.path(), ": encoder stage ", stage, " goes from ",
                                                       stage_in, " to ", width,
                                                       " channels, which no shortcut can do"));
      }
    }
    LANCET_RETURN_IF_ERROR(Middle("encoder.middle", width));
    LANCET_RETURN_IF_ERROR(Tensor("encoder.head.0.gamma", {width, 1, 1, 1}).status());
    LANCET_RETURN_IF_ERROR(Conv3d("encoder.head.2", kMomentChannels, width, 3).status());
    return Conv3d("conv1", kMomentChannels, kMomentChannels, 1).status();
  }

 private:
  static constexpr int64_t kAny = -1;

  absl::Status Error(absl::string_view name, absl::string_view what) const {
    return absl::InvalidArgumentError(absl::StrCat(vae_.path(), ": tensor ", Quote(name), " ", what));
  }

  absl::StatusOr<TensorView> Find(absl::string_view name) const {
    if (!vae_.Contains(name)) return Error(name, "is missing");
    LANCET_ASSIGN_OR_RETURN(const TensorView view, vae_.Get(name));
    if (view.dtype != DType::kF32 && view.dtype != DType::kBf16 && view.dtype != DType::kF16) {
      return Error(name, absl::StrCat("is ", DTypeName(view.dtype), "; expected F32, BF16 or F16"));
    }
    return view;
  }

  absl::StatusOr<TensorView> Tensor(absl::string_view name, const Shape& expected) const {
    LANCET_ASSIGN_OR_RETURN(const TensorView view, Find(name));
    const bool equal =
        std::equal(view.shape.begin(), view.shape.end(), expected.begin(), expected.end(),
                   [](int64_t got, int64_t want) { return want == kAny ? got > 0 : got == want; });
    if (equal) return view;
    const std::string want = absl::StrReplaceAll(ShapeString(expected), {{"-1", "n"}});
    return Error(name, absl::StrCat("has shape ", ShapeString(view.shape), "; expected ", want));
  }

  // Weight and bias; the number of output channels.
  absl::StatusOr<int64_t> Conv(absl::string_view name, const Shape& weight) const {
    LANCET_ASSIGN_OR_RETURN(const TensorView view, Tensor(absl::StrCat(name, ".weight"), weight));
    LANCET_RETURN_IF_ERROR(Tensor(absl::StrCat(name, ".bias"), {view.shape[0]}).status());
    return view.shape[0];
  }
  absl::StatusOr<int64_t> Conv3d(absl::string_view name, int64_t out, int64_t in, int64_t side) const {
    return Conv(name, {out, in, side == 3 ? taps_ : 1, side, side});
  }

  absl::StatusOr<int64_t> ResBlock(const std::string& prefix, int64_t in) const {
    LANCET_RETURN_IF_ERROR(Tensor(absl::StrCat(prefix, ".residual.0.gamma"), {in, 1, 1, 1}).status());
    LANCET_ASSIGN_OR_RETURN(const int64_t out, Conv3d(absl::StrCat(prefix, ".residual.2"), kAny, in, 3));
    LANCET_RETURN_IF_ERROR(Tensor(absl::StrCat(prefix, ".residual.3.gamma"), {out, 1, 1, 1}).status());
    LANCET_RETURN_IF_ERROR(Conv3d(absl::StrCat(prefix, ".residual.6"), out, out, 3).status());
    const std::string shortcut = absl::StrCat(prefix, ".shortcut");
    if (in != out) {
      LANCET_RETURN_IF_ERROR(Conv3d(shortcut, out, in, 1).status());
    } else if (vae_.Contains(absl::StrCat(shortcut, ".weight"))) {
      return Error(absl::StrCat(shortcut, ".weight"),
                   absl::StrCat("stands in a block that keeps its ", in, " channels"));
    }
    return out;
  }

  absl::Status Middle(const std::string& prefix, int64_t width) const {
    for (const char* block : {".0", ".2"}) {
      const std::string name = absl::StrCat(prefix, block);
      LANCET_ASSIGN_OR_RETURN(const int64_t out, ResBlock(name, width));
      if (out != width)
        return Error(absl::StrCat(name, ".residual.2.weight"), "changes the number of channels");
    }
    const std::string attention = absl::StrCat(prefix, ".1");
    LANCET_RETURN_IF_ERROR(Tensor(absl::StrCat(attention, ".norm.gamma"), {width, 1, 1}).status());
    LANCET_RETURN_IF_ERROR(Conv(absl::StrCat(attention, ".to_qkv"), {3 * width, width, 1, 1}).status());
    return Conv(absl::StrCat(attention, ".proj"), {width, width, 1, 1}).status();
  }

  // Spatial resampling, and the temporal one of `time_out` channels when that is not 0 and the file is for
  // videos too.
  absl::Status Resample(const std::string& prefix, int64_t width, int64_t time_out) const {
    LANCET_RETURN_IF_ERROR(Conv(absl::StrCat(prefix, ".resample.1"), {width, width, 3, 3}).status());
    if (time_out == 0) return absl::OkStatus();
    const std::string time_conv = absl::StrCat(prefix, ".time_conv");
    if (!image_only()) return Conv(time_conv, {time_out, width, 3, 1, 1}).status();
    if (vae_.Contains(absl::StrCat(time_conv, ".weight"))) {
      return Error(absl::StrCat(time_conv, ".weight"),
                   "stands in a file whose kernels have one temporal tap");
    }
    return absl::OkStatus();
  }

  const StateDict& vae_;
  int64_t taps_ = 0;
};

}  // namespace

absl::StatusOr<VaeLayout> CheckVae(const StateDict& vae) {
  VaeChecker checker(vae);
  LANCET_RETURN_IF_ERROR(checker.ReadTemporalExtent("decoder.conv1"));
  LANCET_RETURN_IF_ERROR(checker.CheckDecoder());
  VaeLayout layout;
  layout.image_only = checker.image_only();
  layout.has_encoder = std::any_of(vae.names().begin(), vae.names().end(), [](absl::string_view name) {
    return absl::StartsWith(name, "encoder.") || absl::StartsWith(name, "conv1.");
  });
  if (layout.has_encoder) LANCET_RETURN_IF_ERROR(checker.CheckEncoder());
  return layout;
}

}  // namespace lancet
