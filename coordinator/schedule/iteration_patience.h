// How long an iteration may take before its group counts as hung, from what others of its kind have taken. A
// rank whose compute thread is stuck answers pings and is found by this alone. Not thread-safe.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "absl/time/time.h"

namespace lancet {

// What an iteration does, by the kinds of work whose time grows with a number of its own.
struct IterationSize {
  int64_t rows = 0;             // packed rows through the trunk
  int64_t encoded_patches = 0;  // of pictures for the vision tower
  int64_t encoded_latents = 0;  // of pictures for the autoencoder
  int64_t decoded_latents = 0;  // of results and of previews by the autoencoder
};

class IterationPatience {
 public:
  struct Options {
    absl::Duration least = absl::Seconds(30);  // a busy machine, a slow disk
    absl::Duration most = absl::Minutes(10);   // also for work of a kind that was not seen yet
    double factor = 20;                        // times what is expected
  };

  explicit IterationPatience(Options options) : options_(options) {}

  void Add(const IterationSize& size, absl::Duration took) {
    for (const auto& [member, index] : kParts) {
      if (size.*member == 0) continue;
      Part& part = parts_[index];
      part.largest = std::max(part.largest, size.*member);
      // Of an iteration with several kinds each is charged all of the time: too much patience rather than too
      // little.
      part.longest = std::max(part.longest, took);
    }
  }

  absl::Duration For(const IterationSize& size) const {
    absl::Duration expected;
    for (const auto& [member, index] : kParts) {
      if (size.*member == 0) continue;
      const Part& part = parts_[index];
      if (part.largest == 0) return options_.most;
      // What is larger than anything seen takes longer by the square at most, as attention does.
      const double growth =
          std::max(1.0, static_cast<double>(size.*member) / static_cast<double>(part.largest));
      expected += part.longest * growth * growth;
    }
    return std::min(options_.most, std::max(options_.least, expected * options_.factor));
  }

 private:
  struct Part {
    int64_t largest = 0;
    absl::Duration longest;
  };
  struct Member {
    int64_t IterationSize::*member;
    size_t index;
  };
  static constexpr std::array<Member, 4> kParts = {{{&IterationSize::rows, 0},
                                                    {&IterationSize::encoded_patches, 1},
                                                    {&IterationSize::encoded_latents, 2},
                                                    {&IterationSize::decoded_latents, 3}}};

  Options options_;
  std::array<Part, 4> parts_;
};

}  // namespace lancet
