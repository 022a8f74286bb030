// Writes files of random tensors piece by piece, from several threads, holding a few megabytes in memory.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "common/thread_pool.h"
#include "tools/make_random/random_tensors.h"

namespace lancet {

// A safetensors file without metadata, tensors in the order given.
absl::Status WriteRandomSafetensors(const std::string& path, absl::Span<const RandomTensor> tensors,
                                    ThreadPool& pool);

// An archive as torch.save writes an OrderedDict: stored, one storage a tensor, data at multiples of 64
// bytes. F32 or BF16. InvalidArgument for 4 GiB and more, which would take zip64.
absl::Status WriteRandomTorchArchive(const std::string& path, absl::Span<const RandomTensor> tensors,
                                     ThreadPool& pool);

}  // namespace lancet
