// Which way up a camera held the picture: the orientation of EXIF data, and turning pictures by it.
//
// EXIF data is a TIFF file: "II*\0" (little-endian) or "MM\0*" (big-endian), u32 offset of the first
// directory; there u16 entries, then 12 bytes each: u16 tag, u16 type, u32 count, 4 bytes of value.
// Orientation is tag 0x0112, one u16:
//   1 upright   2 mirrored   3 turned by 180 degrees   4 flipped   5 transposed
//   6 must be turned clockwise   7 transposed along the other diagonal   8 must be turned counter-clockwise
#pragma once

#include "absl/strings/string_view.h"
#include "common/rgb_image.h"

namespace lancet {

// 1 to 8; 1 if the data says nothing or makes no sense. Reads the first directory only, in one pass. A
// leading "Exif\0\0" is skipped.
int ExifOrientation(absl::string_view exif);

// The picture turned upright. `image` must be well-formed; an orientation outside 2 to 8 leaves it as it is.
RgbImage TurnUpright(RgbImage image, int orientation);

}  // namespace lancet
