// Whether a picture shows the scene that was asked for: sprites at known places on a flat background, which
// is what the demo model draws.
//
// A picture is right when
//   - at every place the nearest of all named sprites is the one asked for: least squared distance between
//   the place's
//     square, reduced to the size of the sprites at hand, and each sprite on the background asked for;
//   - the background is the nearest of all to the median colour of what lies outside those squares;
//   - no more than 3 % of all pixels are stray paint: outside the squares, and farther than 40 levels in some
//   channel
//     from the background asked for.
//
// What there is to draw is in a JSON file, and a picture that it names, in the same folder, has the sprites
// in rows of `columns`: colours times alpha in its left half, alpha in its right half. make_sprites.py writes
// both.
//   {"version": 1, "sprites": "demo_judge.webp", "side": 28, "columns": 21, "small_px": 112, "large_px": 208,
//    "edge_px": 64, "places": {"top left": [0, 0], ...: [column, row] of three},
//    "backgrounds": {"white": [255, 255, 255], ...}, "names": ["red apple", ...]}
// Sprites are centred edge_px from the edges, or in the middle.
#pragma once

#include <array>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/rgb_image.h"
#include "coordinator/request/resample.h"
#include "tools/requests/request_set.h"

namespace lancet {

struct SceneVerdict {
  std::vector<std::string> seen;  // the nearest sprite at each object's place
  std::string background;         // the nearest one
  double stray = 0;               // share of all pixels
  bool right = false;
};

class SceneJudge {
 public:
  // NotFound or InvalidArgument names file and key.
  static absl::StatusOr<SceneJudge> Open(const std::string& path);

  size_t num_sprites() const { return names_.size(); }
  // InvalidArgument for an object, place or background that it does not know, and for a picture too small for
  // a place.
  absl::StatusOr<SceneVerdict> Judge(const RgbImage& picture, const Scene& scene) const;

 private:
  using Colour = std::array<float, 3>;

  SceneJudge() = default;
  absl::Status ReadSprites(const RgbImage& atlas, int columns);
  absl::StatusOr<CropRect> BoxOf(const RgbImage& picture, const SceneObject& object) const;
  // Of the nearest sprite to the picture's rectangle.
  absl::StatusOr<size_t> Nearest(const RgbImage& picture, const CropRect& box,
                                 const Colour& background) const;

  int side_ = 0;
  int small_px_ = 0;
  int large_px_ = 0;
  int edge_px_ = 0;
  std::map<std::string, std::array<int, 2>> places_;
  std::map<std::string, Colour> backgrounds_;
  std::vector<std::string> names_;
  std::vector<float> colours_;  // [sprites, side, side, 3], times alpha
  std::vector<float> alphas_;   // [sprites, side, side], 0 to 1
};

}  // namespace lancet
