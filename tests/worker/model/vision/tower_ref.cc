#include "tests/worker/model/vision/tower_ref.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "common/bf16.h"

namespace lancet {
namespace {

using Values = std::vector<double>;

double Rounded(double x) { return RoundToBf16(static_cast<float>(x)); }

// Where a patch stands: frame and window numbers are unique over all clips.
struct Place {
  int64_t frame, window, row, col;
};

class TowerRef {
 public:
  TowerRef(const VisionConfig& config, const TowerWeights& weights, bool rounded_table)
      : config_(config), weights_(weights), rounded_table_(rounded_table) {}

  Values Run(const Values& patches, const std::vector<VisionGrid>& grids) {
    Locate(grids);
    Values x = Linear(patches, "patch_embed.proj", config_.patch_values());
    for (int64_t block = 0; block < config_.depth; ++block) {
      const std::string prefix = absl::StrCat("blocks.", block, ".");
      Add(x, Attend(Norm(x, prefix + "norm1.weight"), prefix, config_.IsFullAttention(block)));
      Add(x, Mlp(Norm(x, prefix + "norm2.weight"), prefix));
    }
    Values merged = Linear(Norm(x, "merger.ln_q.weight"), "merger.mlp.0", config_.merged_size());
    for (double& v : merged) v = 0.5 * v * (1.0 + std::erf(v / std::sqrt(2.0)));
    return Linear(merged, "merger.mlp.2", config_.merged_size());
  }

 private:
  void Locate(const std::vector<VisionGrid>& grids) {
    const int64_t merge = config_.merge_size;
    int64_t frame = 0;
    for (const VisionGrid& grid : grids) {
      for (int32_t t = 0; t < grid.t; ++t, ++frame) {
        for (int64_t i = 0; i < static_cast<int64_t>(grid.h) * grid.w; ++i) {
          const int64_t cell = i / (merge * merge);
          const int64_t y = cell / (grid.w / merge);
          const int64_t x = cell % (grid.w / merge);
          const int64_t window = (frame * 1000 + y / config_.window_cells) * 1000 + x / config_.window_cells;
          places_.push_back({frame, window, y * merge + i % (merge * merge) / merge, x * merge + i % merge});
        }
      }
    }
  }

  static void Add(Values& x, const Values& delta) {
    for (size_t i = 0; i < x.size(); ++i) x[i] += delta[i];
  }

  // x: rows of `in` values.
  Values Linear(const Values& x, const std::string& name, int64_t in) const {
    const Values& w = weights_.at(name + ".weight");
    const auto bias = weights_.find(name + ".bias");
    const int64_t out = static_cast<int64_t>(w.size()) / in;
    Values y;
    for (size_t row = 0; row < x.size(); row += in) {
      for (int64_t o = 0; o < out; ++o) {
        double sum = bias == weights_.end() ? 0.0 : bias->second[o];
        for (int64_t i = 0; i < in; ++i) sum += x[row + i] * w[o * in + i];
        y.push_back(sum);
      }
    }
    return y;
  }

  Values Norm(const Values& x, const std::string& name) const {
    const Values& w = weights_.at(name);
    Values y;
    for (size_t row = 0; row < x.size(); row += w.size()) {
      double sum = 0;
      for (size_t i = 0; i < w.size(); ++i) sum += x[row + i] * x[row + i];
      const double inverse = 1.0 / std::sqrt(sum / static_cast<double>(w.size()) + 1e-6);
      for (size_t i = 0; i < w.size(); ++i) y.push_back(x[row + i] * inverse * w[i]);
    }
    return y;
  }

  void Rotate(double* head, const Place& place) const {
    const int64_t half = config_.head_dim / 2;
    for (int64_t d = 0; d < half; ++d) {
      const bool column = d >= half / 2;
      double frequency = std::pow(10000.0, -static_cast<double>(d % (half / 2)) / (half / 2.0));
      if (rounded_table_) frequency = Rounded(frequency);
      double angle = static_cast<double>(column ? place.col : place.row) * frequency;
      if (rounded_table_) angle = Rounded(angle);
      const double c = rounded_table_ ? Rounded(std::cos(angle)) : std::cos(angle);
      const double s = rounded_table_ ? Rounded(std::sin(angle)) : std::sin(angle);
      const double a = head[d];
      const double b = head[d + half];
      head[d] = a * c - b * s;
      head[d + half] = b * c + a * s;
    }
  }

  Values Attend(const Values& x, const std::string& prefix, bool full) const {
    const int64_t hidden = config_.hidden_size;
    const int64_t dim = config_.head_dim;
    Values qkv = Linear(x, prefix + "attn.qkv", hidden);
    const int64_t rows = static_cast<int64_t>(places_.size());
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t h = 0; h < 2 * config_.num_heads; ++h) Rotate(&qkv[r * 3 * hidden + h * dim], places_[r]);
    }
    Values out(rows * hidden);
    for (int64_t h = 0; h < config_.num_heads; ++h) {
      for (int64_t r = 0; r < rows; ++r) {
        const double* q = &qkv[r * 3 * hidden + h * dim];
        double total = 0;
        double* sums = &out[r * hidden + h * dim];
        for (int64_t other = 0; other < rows; ++other) {
          if (places_[r].frame != places_[other].frame) continue;
          if (!full && places_[r].window != places_[other].window) continue;
          const double* k = &qkv[other * 3 * hidden + hidden + h * dim];
          const double* v = k + hidden;
          double score = 0;
          for (int64_t d = 0; d < dim; ++d) score += q[d] * k[d];
          const double p = std::exp(score / std::sqrt(static_cast<double>(dim)));
          total += p;
          for (int64_t d = 0; d < dim; ++d) sums[d] += p * v[d];
        }
        for (int64_t d = 0; d < dim; ++d) sums[d] /= total;
      }
    }
    return Linear(out, prefix + "attn.proj", hidden);
  }

  Values Mlp(const Values& x, const std::string& prefix) const {
    Values gate = Linear(x, prefix + "mlp.gate_proj", config_.hidden_size);
    const Values up = Linear(x, prefix + "mlp.up_proj", config_.hidden_size);
    for (size_t i = 0; i < gate.size(); ++i) gate[i] = gate[i] / (1.0 + std::exp(-gate[i])) * up[i];
    return Linear(gate, prefix + "mlp.down_proj", config_.intermediate_size);
  }

  const VisionConfig& config_;
  const TowerWeights& weights_;
  const bool rounded_table_;
  std::vector<Place> places_;
};

}  // namespace

std::vector<double> RunTowerRef(const VisionConfig& config, const TowerWeights& weights,
                                const std::vector<double>& patches, const std::vector<VisionGrid>& grids,
                                bool rounded_table) {
  return TowerRef(config, weights, rounded_table).Run(patches, grids);
}

}  // namespace lancet
