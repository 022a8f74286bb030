"""Tables that the trunk and the vision tower read: rotary angles, latent positions, time features, sizes.

All follow the public model: rotary frequencies and their cosines are rounded to bf16 even where everything else is not.
"""

import functools
import math

import torch

HEAD = 128  # width of a trunk head
LATENT_SIDE = 64  # rows and columns of the latent position table
SECTIONS = (16, 24, 24)  # rotary frequencies of the t, h and w axes


def bf16_rounded(tensor):
    return tensor.to(torch.bfloat16).to(torch.float32)


@functools.lru_cache(maxsize=None)
def _frequencies(device, base=1e6):
    frequencies = bf16_rounded(base ** (-torch.arange(HEAD // 2, dtype=torch.float64) / (HEAD // 2)))
    return frequencies.to(device)


@functools.lru_cache(maxsize=None)
def _axes(device):
    return torch.repeat_interleave(torch.arange(3), torch.tensor(SECTIONS)).to(device)


def rotary(positions, dtype=torch.float32):
    """cos, sin [..., 64] of integer positions [..., 3] (t, h, w); angles in f32, results bf16-rounded."""
    device = positions.device
    angles = positions.to(torch.float32)[..., _axes(device)] * _frequencies(device)
    return bf16_rounded(angles.cos()).to(dtype), bf16_rounded(angles.sin()).to(dtype)


def apply_rotary(x, cos, sin):
    """Half-split pairs (f, f + 64) of x [..., heads, rows, 128] with cos, sin [..., 1, rows, 64]."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def latent_positions(height, width, hidden):
    """[h * w, hidden] f32 (bf16-rounded): sine-cosine table of a picture's latent grid, rows in raster order."""
    side = hidden // 3 // 2 * 2
    widths = (side, side, hidden - 2 * side)
    row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    parts = []
    for extent, coordinate in zip(widths, (torch.zeros_like(row), row, column)):
        half = extent // 2
        omega = 10000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
        angle = coordinate.reshape(-1, 1).to(torch.float64) * omega
        parts += [angle.sin(), angle.cos()]
    return bf16_rounded(torch.cat(parts, dim=1).to(torch.float32))


def time_features(t, dtype=torch.float32):
    """[n, 256] of times t [n] in 0..1: cosines first."""
    phi = torch.exp(-math.log(10000.0) * torch.arange(128, dtype=torch.float32, device=t.device) / 128)
    angles = t.to(dtype)[:, None] * phi.to(dtype)
    return torch.cat((angles.cos(), angles.sin()), dim=1)


def patch_rotary(rows, columns, dtype=torch.float32):
    """cos, sin [n, 40] of patch coordinates [n], for vision heads of 80; frequencies, angles and results in bf16."""
    frequencies = (10000.0 ** (-torch.arange(20, dtype=torch.float64) / 20)).to(torch.bfloat16)
    angles = torch.cat(
        (rows.to(torch.bfloat16)[:, None] * frequencies, columns.to(torch.bfloat16)[:, None] * frequencies), dim=1
    ).to(torch.float32)
    return bf16_rounded(angles.cos()).to(dtype), bf16_rounded(angles.sin()).to(dtype)
