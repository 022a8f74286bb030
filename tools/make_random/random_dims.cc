#include "tools/make_random/random_dims.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/quote.h"

namespace lancet {
namespace {

// The added tokens follow the base tokens in the order of Qwen2.5-VL's tokenizer.
void SetTokenIds(RandomDims& dims) {
  dims.trunk.bos_token_id = dims.base_tokens;
  dims.trunk.eos_token_id = dims.base_tokens + 2;
  dims.trunk.vision_start_token_id = dims.base_tokens + 9;
  dims.trunk.vision_end_token_id = dims.base_tokens + 10;
  dims.trunk.video_token_id = dims.base_tokens + 13;
}

RandomDims ReleaseDims() {
  RandomDims dims;
  dims.trunk.hidden_size = 2048;
  dims.trunk.num_layers = 36;
  dims.trunk.num_heads = 16;
  dims.trunk.num_kv_heads = 2;
  dims.trunk.head_dim = 128;
  dims.trunk.intermediate_size = 11008;
  dims.trunk.vocab_size = 151936;
  dims.base_tokens = 151643;
  dims.vision.depth = 32;
  dims.vision.hidden_size = 1280;
  dims.vision.num_heads = 16;
  dims.vision.head_dim = 80;
  dims.vision.intermediate_size = 3420;
  dims.vision.full_attention_blocks = {7, 15, 23, 31};
  dims.vae_encoder_base = 160;
  dims.vae_decoder_base = 256;
  return dims;
}

RandomDims SmallDims() {
  RandomDims dims;
  dims.trunk.hidden_size = 256;
  dims.trunk.num_layers = 2;
  dims.trunk.num_heads = 2;
  dims.trunk.num_kv_heads = 1;
  dims.trunk.head_dim = 128;
  dims.trunk.intermediate_size = 176;
  dims.trunk.vocab_size = 384;
  dims.base_tokens = 300;
  dims.vision.depth = 2;
  dims.vision.hidden_size = 32;
  dims.vision.num_heads = 2;
  dims.vision.head_dim = 16;
  dims.vision.intermediate_size = 48;
  dims.vision.full_attention_blocks = {1};
  dims.vae_encoder_base = 8;
  dims.vae_decoder_base = 8;
  return dims;
}

}  // namespace

absl::StatusOr<RandomDims> RandomDimsByName(absl::string_view name) {
  RandomDims dims;
  if (name == "3b") {
    dims = ReleaseDims();
  } else if (name == "small") {
    dims = SmallDims();
  } else {
    return absl::InvalidArgumentError(absl::StrCat("dims is ", Quote(name), "; expected 3b or small"));
  }
  SetTokenIds(dims);
  dims.vision.out_hidden_size = dims.trunk.hidden_size;
  return dims;
}

}  // namespace lancet
