#include "common/rank_proof.h"

#include "absl/strings/str_cat.h"
#include "common/digest.h"

namespace lancet {

std::string RankProof(absl::string_view secret, absl::string_view nonce, const RankClaim& claim) {
  // Sizes keep two fields from being taken for others.
  std::string text = "lancet.v1 rank";
  for (const absl::string_view field : {nonce, claim.group, claim.fingerprint}) {
    absl::StrAppend(&text, "\n", field.size(), " ", field);
  }
  absl::StrAppend(&text, "\n", claim.rank, " ", claim.world_size);
  return ToHex(HmacSha256(secret, text));
}

}  // namespace lancet
