// What the two halves of the autoencoder have in common: memory for maps, residual blocks and the attention
// of the middle block. Maps that a layer needs besides its input and output come from the caller, who knows
// what is free.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "kernels/conv.h"
#include "kernels/feature_map.h"
#include "kernels/kernel_context.h"
#include "kernels/spatial_attention.h"
#include "kernels/vae_ops.h"
#include "worker/model/vae/strip_conv.h"
#include "worker/model/vae/vae_weights.h"

namespace lancet {

inline constexpr ConvPadding kNoPadding;
inline constexpr ConvPadding kSamePadding{1, 1, 1, 1};

// Memory for maps, untouched until used.
class MapBuffer {
 public:
  // ResourceExhausted, with the size, if it can't be had.
  absl::Status Reserve(int64_t bytes) {
    constexpr size_t kAlignment = 64;
    const size_t rounded = (static_cast<size_t>(bytes) + kAlignment - 1) / kAlignment * kAlignment;
    data_.reset(std::aligned_alloc(kAlignment, rounded));
    if (data_ == nullptr) {
      return absl::ResourceExhaustedError(
          absl::StrCat("no memory for ", bytes, " bytes of autoencoder activations"));
    }
    return absl::OkStatus();
  }
  MapView<bf16> Map(int64_t height, int64_t width, int64_t channels) const {
    return {static_cast<bf16*>(data_.get()), height, width, channels};
  }

 private:
  struct FreeDeleter {
    void operator()(void* p) const { std::free(p); }
  };
  std::unique_ptr<void, FreeDeleter> data_;
};

// One caller at a time.
class VaeLayers {
 public:
  explicit VaeLayers(SpatialAttention attention) : attention_(std::move(attention)) {}

  // y = conv(silu(norm(x))), or y += with `accumulate`.
  absl::Status NormConv(const KernelContext& ctx, MapView<bf16> x, const std::vector<float>& gamma,
                        Conv2d& conv, bool accumulate, MapView<bf16> y) {
    return strips_.Run(
        conv,
        [&](int64_t begin, MapView<bf16> rows) {
          return ChannelNorm(ctx, x.Rows(begin, rows.height), gamma, NormActivation::kSilu, rows);
        },
        accumulate, y);
  }

  // y = x + conv2(silu(norm2(conv1(silu(norm1(x)))))); y may be x if the widths agree. inner: shaped as y.
  absl::Status Residual(const KernelContext& ctx, VaeResBlock& block, MapView<bf16> x, MapView<bf16> inner,
                        MapView<bf16> y) {
    LANCET_RETURN_IF_ERROR(NormConv(ctx, x, block.norm1, block.conv1, false, inner));
    if (block.shortcut.has_value()) {
      LANCET_RETURN_IF_ERROR(block.shortcut->Forward(x, kNoPadding, false, y));
    } else if (y.data != x.data) {
      std::memcpy(y.data, x.data, x.elements() * sizeof(bf16));
    }
    return NormConv(ctx, inner, block.norm2, block.conv2, true, y);
  }

  // x += proj(attention(qkv(norm(x)))). inner: shaped as x; qkv: with three times its channels.
  absl::Status Attend(const KernelContext& ctx, VaeAttention& w, MapView<bf16> x, MapView<bf16> inner,
                      MapView<bf16> qkv) {
    LANCET_RETURN_IF_ERROR(ChannelNorm(ctx, x, w.norm, NormActivation::kNone, inner));
    LANCET_RETURN_IF_ERROR(w.qkv.Forward(inner, kNoPadding, false, qkv));
    LANCET_RETURN_IF_ERROR(attention_.Forward(ctx, qkv, inner));
    return w.proj.Forward(inner, kNoPadding, true, x);
  }

  StripConv& strips() { return strips_; }

 private:
  SpatialAttention attention_;
  StripConv strips_;
};

}  // namespace lancet
