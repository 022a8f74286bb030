// Sixel graphics: pictures as printable characters, six rows of pixels a line, for terminals since the VT340.
#pragma once

#include <string>

#include "common/rgb_image.h"

namespace lancet {

// The whole escape sequence. Colours are cut to a 6 x 6 x 6 cube (every terminal has 256 registers) with an
// ordered dither against bands. An empty picture gives an empty string.
std::string EncodeSixel(const RgbImage& image);

}  // namespace lancet
