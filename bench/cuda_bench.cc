// Times of the CUDA ops on the shapes of the released model: what each costs beside its floor, and which
// candidates cuBLASLt offers. Random data throughout; weights rotate through more memory than the caches
// hold.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "common/bf16.h"
#include "common/status_macros.h"
#include "kernels/cuda/cuda_context.h"
#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/cudnn_attention.h"
#include "kernels/cuda/few_rows_linear.h"
#include "kernels/cuda/flash_attention.h"
#include "kernels/cuda/gated_product.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/qk_rope.h"
#include "kernels/cuda/row_ops.h"
#include "kernels/cuda/sampler_ops.h"
#include "kernels/cuda/split_attention.h"

namespace lancet {
namespace {

constexpr int64_t kHidden = 2048;
constexpr int64_t kInner = 11008;
constexpr int64_t kQkv = 2560;
constexpr int64_t kLayers = 36;
constexpr int64_t kVocabulary = 151936;

struct LinearSize {
  const char* name;
  int64_t rows, cols;
};
constexpr LinearSize kLinears[] = {{"qkv", kQkv, kHidden},
                                   {"o", kHidden, kHidden},
                                   {"gate_up", 2 * kInner, kHidden},
                                   {"down", kHidden, kInner}};

class Bench {
 public:
  explicit Bench(const CudaContext& ctx) : ctx_(ctx), matmul_(ctx) {}

  absl::Status Run(const std::string& what) {
    std::cout << ctx_.description() << "\n";
    if (what.find('c') != std::string::npos) LANCET_RETURN_IF_ERROR(Copy());
    if (what.find('d') != std::string::npos) {
      for (const int tokens : {1, 8}) {
        for (const cuda::LaunchOverlap overlap :
             {cuda::LaunchOverlap::kNone, cuda::LaunchOverlap::kOne, cuda::LaunchOverlap::kMany}) {
          LANCET_RETURN_IF_ERROR(DecodeTrunk(tokens, overlap));
        }
      }
    }
    if (what.find('a') != std::string::npos) LANCET_RETURN_IF_ERROR(Attention());
    if (what.find('r') != std::string::npos) LANCET_RETURN_IF_ERROR(RowOps());
    if (what.find('g') != std::string::npos) LANCET_RETURN_IF_ERROR(GatedProducts());
    if (what.find('m') != std::string::npos) LANCET_RETURN_IF_ERROR(Matmuls(MatmulInput::kBf16));
    if (what.find('8') != std::string::npos) {
      LANCET_RETURN_IF_ERROR(Matmuls(MatmulInput::kFp8));
      LANCET_RETURN_IF_ERROR(Matmuls(MatmulInput::kFp8, /*fast_sums=*/true));
    }
    return absl::OkStatus();
  }

 private:
  // Bytes that are random and, as bf16 or E4M3, ordinary numbers.
  template <typename T>
  absl::StatusOr<DeviceArray<T>> Random(int64_t count) {
    std::vector<uint16_t> block(1 << 20);
    for (uint16_t& bits : block) {
      state_ = state_ * 6364136223846793005u + 1442695040888963407u;
      const uint32_t r = static_cast<uint32_t>(state_ >> 33);
      // bf16 of magnitude 2^-4 to 2^-1 with random sign and mantissa; its bytes are harmless E4M3 numbers,
      // too.
      bits = static_cast<uint16_t>((r & 0x807fu) | (((123u + (r >> 20) % 4u)) << 7));
    }
    LANCET_ASSIGN_OR_RETURN(DeviceArray<T> array, DeviceArray<T>::Create(count));
    const int64_t bytes = array.bytes();
    for (int64_t at = 0; at < bytes; at += static_cast<int64_t>(block.size() * 2)) {
      const int64_t n = std::min<int64_t>(bytes - at, static_cast<int64_t>(block.size() * 2));
      LANCET_CUDA_RETURN_IF_ERROR(cudaMemcpyAsync(reinterpret_cast<uint8_t*>(array.data()) + at, block.data(),
                                                  static_cast<size_t>(n), cudaMemcpyHostToDevice,
                                                  ctx_.stream()));
    }
    LANCET_RETURN_IF_ERROR(ctx_.Wait(absl::Seconds(20)));
    return array;
  }

  // Median microseconds of `op`, called `inner` times between events.
  absl::StatusOr<double> Time(const std::function<absl::Status()>& op, int inner = 1, int repetitions = 7) {
    CudaHandle<cudaEvent_t, cudaEventDestroy> start;
    CudaHandle<cudaEvent_t, cudaEventDestroy> stop;
    LANCET_CUDA_RETURN_IF_ERROR(cudaEventCreate(start.receive()));
    LANCET_CUDA_RETURN_IF_ERROR(cudaEventCreate(stop.receive()));
    LANCET_RETURN_IF_ERROR(op());
    std::vector<double> times;
    for (int r = 0; r < repetitions; ++r) {
      LANCET_CUDA_RETURN_IF_ERROR(cudaEventRecord(start.get(), ctx_.stream()));
      for (int i = 0; i < inner; ++i) LANCET_RETURN_IF_ERROR(op());
      LANCET_CUDA_RETURN_IF_ERROR(cudaEventRecord(stop.get(), ctx_.stream()));
      LANCET_RETURN_IF_ERROR(ctx_.Wait(absl::Seconds(60)));
      float milliseconds = 0;
      LANCET_CUDA_RETURN_IF_ERROR(cudaEventElapsedTime(&milliseconds, start.get(), stop.get()));
      times.push_back(milliseconds * 1000.0 / inner);
    }
    std::sort(times.begin(), times.end());
    return times[times.size() / 2];
  }

  absl::Status Copy() {
    const int64_t bytes = int64_t{2} << 30;
    LANCET_ASSIGN_OR_RETURN(const auto a, DeviceArray<uint8_t>::Create(bytes));
    LANCET_ASSIGN_OR_RETURN(const auto b, DeviceArray<uint8_t>::Create(bytes));
    LANCET_ASSIGN_OR_RETURN(
        const double us, Time([&] {
          return CudaStatus(
              cudaMemcpyAsync(b.data(), a.data(), bytes, cudaMemcpyDeviceToDevice, ctx_.stream()), "copy");
        }));
    std::cout << absl::StrFormat("copy: %.0f GB/s read + written\n", 2.0 * bytes / us * 1e-3);
    return absl::OkStatus();
  }

  // A decode step without the model around it: every layer's products and attention over a cache, the head,
  // the choice.
  absl::Status DecodeTrunk(int tokens, cuda::LaunchOverlap overlap) {
    constexpr int64_t kKeys = 700;
    if (layers_.empty()) {
      for (int64_t layer = 0; layer < kLayers; ++layer) {
        for (const LinearSize& size : kLinears) {
          const int64_t lanes = cuda::PanelWeights::Lanes(size.rows, size.cols);
          LANCET_ASSIGN_OR_RETURN(auto codes, Random<uint4>(lanes));
          LANCET_ASSIGN_OR_RETURN(auto scales, Random<uint32_t>(lanes));
          layers_.push_back({std::move(codes), std::move(scales)});
        }
      }
      LANCET_ASSIGN_OR_RETURN(head_, Random<bf16>(kVocabulary * kHidden));
      LANCET_ASSIGN_OR_RETURN(rows_, Random<bf16>(64 * 2 * kInner));
      LANCET_ASSIGN_OR_RETURN(cache_, Random<bf16>(kLayers * 2 * 1024 * 256 * 8));
    }
    LANCET_ASSIGN_OR_RETURN(const auto qkv, Random<bf16>(8 * kQkv));
    LANCET_ASSIGN_OR_RETURN(const auto attn, Random<bf16>(8 * kHidden));
    LANCET_ASSIGN_OR_RETURN(const auto inner, Random<bf16>(8 * kInner));
    LANCET_ASSIGN_OR_RETURN(const auto residual, Random<bf16>(8 * kHidden));
    LANCET_ASSIGN_OR_RETURN(const auto logits, DeviceArray<bf16>::Create(8 * kVocabulary));
    LANCET_ASSIGN_OR_RETURN(const auto best, DeviceArray<cuda::ArgmaxPair>::Create(8 * cuda::kArgmaxBlocks));
    LANCET_ASSIGN_OR_RETURN(const auto ids, DeviceArray<int32_t>::Create(8));
    std::vector<cuda::AttentionBlock> blocks;
    std::vector<cuda::AttentionRow> rows;
    std::vector<cuda::KvSlot> slots;
    const int64_t sequence = kLayers * 2 * 1024 * 256;
    for (int i = 0; i < tokens; ++i) {
      cuda::AttentionBlock block;
      block.base = cache_.data() + i * sequence;
      block.layer_stride = 2 * 1024 * 256;
      block.v_offset = 1024 * 256;
      block.kv_stride = 256;
      block.first_row = i;
      block.num_rows = 1;
      block.num_keys = kKeys;
      block.causal = 1;
      blocks.push_back(block);
      rows.push_back({i, 0});
      slots.push_back({cache_.data() + i * sequence + (kKeys - 1) * 256, block.layer_stride, block.v_offset});
    }
    LANCET_ASSIGN_OR_RETURN(const auto device_blocks,
                            DeviceArray<cuda::AttentionBlock>::CopyOf(blocks, ctx_.stream()));
    LANCET_ASSIGN_OR_RETURN(const auto device_rows,
                            DeviceArray<cuda::AttentionRow>::CopyOf(rows, ctx_.stream()));
    LANCET_ASSIGN_OR_RETURN(const auto device_slots, DeviceArray<cuda::KvSlot>::CopyOf(slots, ctx_.stream()));
    const std::vector<uint8_t> zeros(1024);
    LANCET_ASSIGN_OR_RETURN(const auto wide, DeviceArray<uint8_t>::CopyOf(zeros, ctx_.stream()));
    LANCET_RETURN_IF_ERROR(ctx_.Wait(absl::Seconds(20)));

    double parts[5] = {};
    const auto linear = [&](int64_t layer, int which, const bf16* x, int64_t x_stride, const bf16* norm,
                            cuda::FewRowsOutput output, bf16* y, int64_t y_stride) {
      cuda::FewRowsArgs args;
      const LinearSize& size = kLinears[which];
      args.x = x;
      args.x_stride = x_stride;
      args.tokens = tokens;
      args.overlap = overlap;
      args.norm = norm;
      args.eps = 1e-6f;
      args.panels.codes = layers_[layer * 4 + which].codes.data();
      args.panels.scales = layers_[layer * 4 + which].scales.data();
      args.rows = size.rows;
      args.cols = size.cols;
      args.output = output;
      args.y = y;
      args.y_stride = y_stride;
      return CudaStatus(cuda::FewRowsLinear(args, ctx_.stream()), size.name);
    };
    const auto rope_args = [&](int64_t layer) {
      cuda::QkRopeArgs args;
      args.qkv = qkv.data();
      args.stride = kQkv;
      args.rows = tokens;
      args.heads = 16;
      args.kv_heads = 2;
      args.head_dim = 128;
      args.q_norm = rows_.data();
      args.k_norm = rows_.data();
      args.eps = 1e-6f;
      args.cos = rows_.data();
      args.sin = rows_.data();
      args.wide = wide.data();
      args.slots = device_slots.data();
      args.layer = static_cast<int>(layer);
      return args;
    };
    const auto attend = [&](int64_t layer) {
      cuda::SplitArgs split;
      split.fresh = true;
      split.overlap = overlap;
      split.rope = rope_args(layer);
      split.q = qkv.data();
      split.q_stride = kQkv;
      split.out = attn.data();
      split.out_stride = kHidden;
      split.blocks = device_blocks.data();
      split.rows = device_rows.data();
      split.num_rows = tokens;
      split.kv_heads = 2;
      split.group = 8;
      split.head_dim = 128;
      split.layer = static_cast<int>(layer);
      return CudaStatus(cuda::SplitAttention(split, ctx_.stream()), "split attention");
    };
    const auto step = [&](int only) -> absl::Status {
      for (int64_t layer = 0; layer < kLayers; ++layer) {
        if (only < 0 || only == 0) {
          LANCET_RETURN_IF_ERROR(linear(layer, 0, residual.data(), kHidden, rows_.data(),
                                        cuda::FewRowsOutput::kBf16, qkv.data(), kQkv));
        }
        if (only < 0 || only == 1) LANCET_RETURN_IF_ERROR(attend(layer));
        if (only < 0 || only == 2) {
          LANCET_RETURN_IF_ERROR(linear(layer, 1, attn.data(), kHidden, nullptr,
                                        cuda::FewRowsOutput::kResidual, residual.data(), kHidden));
        }
        if (only < 0 || only == 3) {
          LANCET_RETURN_IF_ERROR(linear(layer, 2, residual.data(), kHidden, rows_.data(),
                                        cuda::FewRowsOutput::kSiluMul, inner.data(), kInner));
        }
        if (only < 0 || only == 4) {
          LANCET_RETURN_IF_ERROR(linear(layer, 3, inner.data(), kInner, nullptr,
                                        cuda::FewRowsOutput::kResidual, residual.data(), kHidden));
        }
      }
      return absl::OkStatus();
    };
    const auto head = [&]() -> absl::Status {
      cuda::FewRowsArgs args;
      args.x = residual.data();
      args.x_stride = kHidden;
      args.tokens = tokens;
      args.norm = rows_.data();
      args.eps = 1e-6f;
      args.dense = head_.data();
      args.rows = kVocabulary;
      args.cols = kHidden;
      args.y = logits.data();
      args.y_stride = kVocabulary;
      LANCET_CUDA_RETURN_IF_ERROR(cuda::FewRowsLinear(args, ctx_.stream()));
      return CudaStatus(
          cuda::Argmax(logits.data(), tokens, kVocabulary, 151665, best.data(), ids.data(), ctx_.stream()),
          "argmax");
    };
    const auto captured = [&](const std::function<absl::Status()>& work) -> absl::StatusOr<double> {
      LANCET_RETURN_IF_ERROR(work());
      LANCET_RETURN_IF_ERROR(ctx_.Wait(absl::Seconds(20)));
      LANCET_CUDA_RETURN_IF_ERROR(cudaStreamBeginCapture(ctx_.stream(), cudaStreamCaptureModeThreadLocal));
      const absl::Status status = work();
      cudaGraph_t graph = nullptr;
      LANCET_CUDA_RETURN_IF_ERROR(cudaStreamEndCapture(ctx_.stream(), &graph));
      const CudaHandle<cudaGraph_t, cudaGraphDestroy> owned(graph);
      LANCET_RETURN_IF_ERROR(status);
      CudaHandle<cudaGraphExec_t, cudaGraphExecDestroy> exec;
      LANCET_CUDA_RETURN_IF_ERROR(cudaGraphInstantiate(exec.receive(), graph, 0));
      return Time([&] { return CudaStatus(cudaGraphLaunch(exec.get(), ctx_.stream()), "graph"); }, 5);
    };
    const char* names[5] = {"qkv", "attn", "o", "gate_up", "down"};
    std::string detail;
    for (int i = 0; i < 5; ++i) {
      LANCET_ASSIGN_OR_RETURN(parts[i], captured([&] { return step(i); }));
      detail += absl::StrFormat(" %s %.2f", names[i], parts[i] / kLayers);
    }
    LANCET_ASSIGN_OR_RETURN(const double head_us, captured(head));
    LANCET_ASSIGN_OR_RETURN(const double whole, captured([&]() -> absl::Status {
                              LANCET_RETURN_IF_ERROR(step(-1));
                              return head();
                            }));
    std::cout << absl::StrFormat(
        "decode, %d tokens, %d keys%s: %.1f us, %.0f tokens/s; us a layer:%s; head "
        "%.1f\n",
        tokens, kKeys,
        overlap == cuda::LaunchOverlap::kNone  ? ", launches apart"
        : overlap == cuda::LaunchOverlap::kOne ? ""
                                               : ", many launches at a time",
        whole, tokens * 1e6 / whole, detail, head_us);
    return absl::OkStatus();
  }

  absl::Status Attention() {
    CudnnAttention cudnn(ctx_.cudnn());
    for (const auto& [rows, keys] :
         {std::pair<int64_t, int64_t>{256, 322}, {2304, 2370}, {4096, 4162}, {4096, 6500}}) {
      LANCET_ASSIGN_OR_RETURN(const auto qkv, Random<bf16>(rows * kQkv));
      LANCET_ASSIGN_OR_RETURN(const auto kv, Random<bf16>(2 * keys * 256));
      LANCET_ASSIGN_OR_RETURN(const auto out, Random<bf16>(rows * kHidden));
      const double flop = 4.0 * static_cast<double>(rows) * static_cast<double>(keys) * kHidden;
      cuda::AttentionBlock block;
      block.base = kv.data();
      block.v_offset = keys * 256;
      block.kv_stride = 256;
      block.num_rows = static_cast<int32_t>(rows);
      block.num_keys = static_cast<int32_t>(keys);
      std::vector<cuda::AttentionTile> tiles;
      for (int32_t first = 0; first < rows; first += cuda::kQueryTile) tiles.push_back({0, first});
      const std::vector<cuda::AttentionBlock> blocks = {block};
      LANCET_ASSIGN_OR_RETURN(const auto device_blocks,
                              DeviceArray<cuda::AttentionBlock>::CopyOf(blocks, ctx_.stream()));
      LANCET_ASSIGN_OR_RETURN(const auto device_tiles,
                              DeviceArray<cuda::AttentionTile>::CopyOf(tiles, ctx_.stream()));
      cuda::FlashArgs flash;
      flash.q = qkv.data();
      flash.q_stride = kQkv;
      flash.out = out.data();
      flash.out_stride = kHidden;
      flash.blocks = device_blocks.data();
      flash.tiles = device_tiles.data();
      flash.num_tiles = static_cast<int>(tiles.size());
      flash.heads = 16;
      flash.group = 8;
      flash.head_dim = 128;
      LANCET_ASSIGN_OR_RETURN(
          const double own,
          Time([&] { return CudaStatus(cuda::FlashAttention(flash, ctx_.stream()), "flash"); }, 10));
      PictureAttentionArgs args;
      args.q = qkv.data();
      args.q_stride = kQkv;
      args.k = kv.data();
      args.v = kv.data() + keys * 256;
      args.kv_stride = 256;
      args.out = out.data();
      args.out_stride = kHidden;
      args.rows = rows;
      args.keys = keys;
      args.heads = 16;
      args.kv_heads = 2;
      args.head_dim = 128;
      const auto theirs = Time([&] { return cudnn.Run(args); }, 10);
      std::cout << absl::StrFormat(
          "attention %d rows, %d keys: own %.1f us, %.0f TFLOP/s; cudnn %s\n", rows, keys, own,
          flop / own * 1e-6,
          theirs.ok() ? absl::StrFormat("%.1f us, %.0f TFLOP/s", *theirs, flop / *theirs * 1e-6)
                      : std::string(theirs.status().message()));
    }
    return absl::OkStatus();
  }

  absl::Status RowOps() {
    constexpr int64_t kRows = 4608;
    LANCET_ASSIGN_OR_RETURN(const auto x, Random<bf16>(kRows * 2 * kInner));
    LANCET_ASSIGN_OR_RETURN(const auto y, Random<bf16>(kRows * kInner));
    LANCET_ASSIGN_OR_RETURN(const auto factors, Random<float>(kRows));
    const auto report = [&](const char* name, double bytes,
                            const std::function<cudaError_t()>& op) -> absl::Status {
      LANCET_ASSIGN_OR_RETURN(const double us, Time([&] { return CudaStatus(op(), "row op"); }, 10));
      std::cout << absl::StrFormat("%s, %d rows: %.1f us, %.0f GB/s\n", name, kRows, us, bytes / us * 1e-3);
      return absl::OkStatus();
    };
    cuda::RowOutput bf16_rows;
    bf16_rows.bf16_rows = y.data();
    cuda::RowOutput fp8_rows;
    fp8_rows.fp8_rows = reinterpret_cast<uint8_t*>(y.data());
    fp8_rows.fp8_factors = factors.data();
    for (const auto& [suffix, output, width] :
         {std::tuple<const char*, cuda::RowOutput, double>{"", bf16_rows, 2}, {" to fp8", fp8_rows, 1}}) {
      LANCET_RETURN_IF_ERROR(
          report(absl::StrCat("rms norm", suffix).c_str(), kRows * kHidden * (2 + width), [&] {
            return cuda::RmsNorm(x.data(), kHidden, x.data(), 1e-6f, kRows, kHidden, output, ctx_.stream());
          }));
      LANCET_RETURN_IF_ERROR(
          report(absl::StrCat("silu mul", suffix).c_str(), kRows * kInner * (4 + width),
                 [&] { return cuda::SiluMul(x.data(), kRows, kInner, output, ctx_.stream()); }));
      LANCET_RETURN_IF_ERROR(report(absl::StrCat("copy", suffix).c_str(), kRows * kHidden * (2 + width), [&] {
        return cuda::QuantiseRows(x.data(), kHidden, kRows, kHidden, output, ctx_.stream());
      }));
    }
    return absl::OkStatus();
  }

  // Beside the library's product alone, without the activation.
  absl::Status GatedProducts() {
    LANCET_ASSIGN_OR_RETURN(const auto w, Random<bf16>(2 * kInner * kHidden));
    LANCET_ASSIGN_OR_RETURN(const auto x, Random<bf16>(8192 * kHidden));
    LANCET_ASSIGN_OR_RETURN(const auto y, Random<bf16>(8192 * 2 * kInner));
    for (const int64_t tokens : {256, 512, 2304, 4608, 8192}) {
      cuda::GatedProductArgs args;
      args.x = x.data();
      args.gate_up = w.data();
      args.y = y.data();
      args.tokens = tokens;
      args.inner = kInner;
      args.cols = kHidden;
      MatmulShape shape;
      shape.tokens = tokens;
      shape.rows = 2 * kInner;
      shape.cols = kHidden;
      shape.x_stride = kHidden;
      shape.y_stride = 2 * kInner;
      MatmulArgs plain;
      plain.x = x.data();
      plain.w = w.data();
      plain.y = y.data();
      LANCET_ASSIGN_OR_RETURN(
          const double own,
          Time([&] { return CudaStatus(cuda::GatedProduct(args, ctx_.stream()), "gated product"); }, 10));
      LANCET_ASSIGN_OR_RETURN(const double library, Time([&] { return matmul_.Run(shape, plain); }, 10));
      const double flop = 4.0 * static_cast<double>(tokens * kInner) * static_cast<double>(kHidden);
      std::cout << absl::StrFormat(
          "gated product, %d rows: %.1f us, %.0f TFLOP/s; product alone, cuBLASLt: %.1f us, %.0f TFLOP/s\n",
          tokens, own, flop / own * 1e-6, library, flop / library * 1e-6);
    }
    return absl::OkStatus();
  }

  absl::Status Matmuls(MatmulInput input, bool fast_sums = false) {
    const int64_t width = input == MatmulInput::kBf16 ? 2 : 1;
    LANCET_ASSIGN_OR_RETURN(const auto w, Random<uint8_t>(2 * kInner * kHidden * width));
    LANCET_ASSIGN_OR_RETURN(const auto x, Random<uint8_t>(8192 * kInner * width));
    LANCET_ASSIGN_OR_RETURN(const auto y, Random<bf16>(8192 * 2 * kInner));
    LANCET_ASSIGN_OR_RETURN(const auto factors, Random<float>(2 * kInner));
    for (const LinearSize& size : kLinears) {
      std::vector<std::vector<bf16>> first_rows;
      for (const int64_t tokens : {16, 100, 512, 2304, 4608, 8192}) {
        MatmulShape shape;
        shape.input = input;
        shape.fast_sums = fast_sums;
        shape.tokens = tokens;
        shape.rows = size.rows;
        shape.cols = size.cols;
        shape.x_stride = size.cols;
        shape.y_stride = size.rows;
        MatmulArgs args;
        args.x = x.data();
        args.w = w.data();
        args.x_scales = factors.data();
        args.w_scales = factors.data();
        args.y = y.data();
        const auto candidates = matmul_.Candidates(shape, args);
        if (!candidates.ok()) {
          std::cout << size.name << " " << tokens << ": " << candidates.status().message() << "\n";
          continue;
        }
        std::string line;
        double best = 1e30;
        for (const MatmulCandidate& candidate : *candidates) {
          const auto us = Time([&] { return matmul_.RunCandidate(shape, args, candidate); }, 5, 3);
          if (!us.ok()) continue;
          std::vector<bf16> rows(4 * size.rows);
          LANCET_RETURN_IF_ERROR(y.CopyTo(absl::MakeSpan(rows), ctx_.stream()));
          LANCET_RETURN_IF_ERROR(ctx_.Wait(absl::Seconds(20)));
          size_t same = 0;
          while (same < first_rows.size() && !(first_rows[same] == rows)) ++same;
          if (same == first_rows.size()) first_rows.push_back(rows);
          best = std::min(best, *us);
          absl::StrAppend(&line, absl::StrFormat(" %d/%d:%.0f%c", candidate.id, candidate.tile, *us,
                                                 static_cast<char>('A' + same)));
        }
        const double flop = 2.0 * static_cast<double>(tokens * size.rows) * static_cast<double>(size.cols);
        std::cout << absl::StrFormat("%s %s %d: best %.1f us %.0f TFLOP/s;%s\n",
                                     input == MatmulInput::kBf16 ? "bf16"
                                     : fast_sums                 ? "fp8 fast"
                                                                 : "fp8",
                                     size.name, tokens, best, flop / best * 1e-6, line);
      }
    }
    return absl::OkStatus();
  }

  struct Packed {
    DeviceArray<uint4> codes;
    DeviceArray<uint32_t> scales;
  };
  const CudaContext& ctx_;
  MatmulPlans matmul_;
  uint64_t state_ = 1;
  std::vector<Packed> layers_;
  DeviceArray<bf16> head_;
  DeviceArray<bf16> rows_;
  DeviceArray<bf16> cache_;
};

}  // namespace
}  // namespace lancet

int main(int argc, char** argv) {
  const auto ctx = lancet::CudaContext::Create(0);
  if (!ctx.ok()) {
    std::cerr << "cuda_bench: " << ctx.status() << "\n";
    return 1;
  }
  lancet::Bench bench(**ctx);
  // Letters choose: c copy, d decode, a attention, r row ops, g gated product, m bf16 products, 8 FP8
  // products.
  if (const absl::Status status = bench.Run(argc > 1 ? argv[1] : "cdargm8"); !status.ok()) {
    std::cerr << "cuda_bench: " << status << "\n";
    return 1;
  }
  return 0;
}
