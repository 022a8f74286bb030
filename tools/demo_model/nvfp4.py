"""NVFP4 rounding of weights during training, so that the exported source is one that 4 bits hold without loss."""

import torch

BLOCK = 16
LARGEST_CODE = 6.0
# A scale keeps the three mantissa bits of E4M3. Its exponents are not limited: the factor that E4M3 scales are stored
# with is a power of two, chosen from the largest of them, and what lies below its range is next to nothing.
_DROPPED_BITS = 20


def rounded(weight):
    """f32 [out, in] of values that codes and scales represent exactly: a scale of max / 6 a block, nearest codes.

    `lancet-quantize --recipe best` finds these very scales again, in both forms that it writes, as nothing has a
    smaller error than none.
    """
    blocks = weight.float().unflatten(1, (-1, BLOCK))
    scale = (blocks.abs().amax(-1, keepdim=True) / LARGEST_CODE).clamp_min(1e-12)
    bits = scale.view(torch.int32)
    scale = (((bits + (1 << (_DROPPED_BITS - 1))) >> _DROPPED_BITS) << _DROPPED_BITS).view(torch.float32)
    ratio = (blocks / scale).abs().clamp(max=LARGEST_CODE)
    # Codes are 0.5 apart below 2, 1 below 4, 2 up to 6.
    step = torch.where(ratio < 2, 0.5, torch.where(ratio < 4, 1.0, 2.0))
    code = torch.round(ratio / step) * step
    return (code * scale * blocks.sign()).flatten(1)
