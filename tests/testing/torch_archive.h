// PyTorch archives for tests, well-formed or not: a zip writer and the pieces of a pickle.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace lancet {

struct TestZipMember {
  std::string name;
  std::string content;
  bool deflate = false;
  // What the directory says instead of the truth, when >= 0.
  int64_t declared_size = -1;
  int64_t declared_crc = -1;
  uint16_t flags = 0;
  int method = -1;  // other than stored or deflated
};

// A zip archive of these members, in order.
std::string ZipBytes(const std::vector<TestZipMember>& members);

// Pieces of a pickle of protocol 2.
namespace pickle {

inline constexpr absl::string_view kStart("\x80\x02", 2);
inline constexpr absl::string_view kOrderedDict = "ccollections\nOrderedDict\n)R";
inline constexpr absl::string_view kStop = ".";

std::string Text(absl::string_view text);
std::string Int(int64_t value);
std::string Ints(const std::vector<int64_t>& values);  // a tuple
// ('storage', torch.<type>, key, 'cpu', elements), recalled from outside.
std::string Storage(absl::string_view type, absl::string_view key, int64_t elements);
std::string Tensor(absl::string_view storage, int64_t offset, const std::vector<int64_t>& shape,
                   const std::vector<int64_t>& strides);
// A whole pickle: an OrderedDict of these keys and values, each already pickled.
std::string StateDict(const std::vector<std::pair<std::string, std::string>>& entries);

}  // namespace pickle
}  // namespace lancet
