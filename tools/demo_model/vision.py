"""The Qwen2.5-VL vision tower in plain torch, parameters under the public names."""

import functools

import torch
from torch import nn
from torch.nn import functional as F

import tables
from trunk import RmsNorm

PATCH = 14
WINDOW = 4  # merged cells
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


@functools.lru_cache(maxsize=None)
def window_order(rows, columns):
    """(order, lengths) for a grid of merged cells: the cells window by window, and the patches in each window."""
    order, lengths = [], []
    for top in range(0, rows, WINDOW):
        for left in range(0, columns, WINDOW):
            cells = [
                y * columns + x
                for y in range(top, min(top + WINDOW, rows))
                for x in range(left, min(left + WINDOW, columns))
            ]
            order += cells
            lengths.append(4 * len(cells))
    return order, lengths


@functools.lru_cache(maxsize=None)
def _normalisation(device, dtype):
    return tuple(torch.tensor(c, dtype=dtype).view(1, 3, 1, 1).to(device) for c in (MEAN, STD))


@functools.lru_cache(maxsize=None)
def _grid_tables(rows, columns, device, dtype):
    """(window order of the cells, cos, sin of their patches) for a grid of merged cells."""
    cell = torch.tensor(window_order(rows, columns)[0])
    row = (cell // columns * 2)[:, None] + torch.tensor([0, 0, 1, 1])
    column = (cell % columns * 2)[:, None] + torch.tensor([0, 1, 0, 1])
    cos, sin = tables.patch_rotary(row.flatten(), column.flatten(), dtype)
    return cell.to(device), cos.to(device), sin.to(device)


def patches_of(pixels):
    """[batch, patches, 1176] of pixels [batch, 3, H, W] in 0..1, H and W multiples of 28: 2x2 cells of patches in raster
    order, each patch as (channel, frame twice, row, column)."""
    batch, _, height, width = pixels.shape
    mean, std = _normalisation(pixels.device, pixels.dtype)
    x = (pixels - mean) / std
    x = x.view(batch, 3, height // 28, 2, PATCH, width // 28, 2, PATCH)
    x = x.permute(0, 2, 5, 3, 6, 1, 4, 7)  # cell row, cell column, row in it, column in it, channel, y, x
    x = x[:, :, :, :, :, :, None].expand(-1, -1, -1, -1, -1, -1, 2, -1, -1)
    return x.reshape(batch, -1, 3 * 2 * PATCH * PATCH)


class _Attention(nn.Module):
    def __init__(self, hidden, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(hidden, 3 * hidden)
        self.proj = nn.Linear(hidden, hidden)

    def forward(self, x, cos, sin, lengths):
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = (tables.apply_rotary(part, cos, sin).to(v.dtype) for part in (q, k))
        if len(set(lengths)) == 1:  # equal windows become a batch
            split = [
                part.unflatten(2, (len(lengths), lengths[0])).transpose(1, 2).flatten(0, 1) for part in (q, k, v)
            ]
            y = F.scaled_dot_product_attention(*split)
            y = y.unflatten(0, (x.shape[0], len(lengths))).transpose(1, 2).flatten(2, 3)
        else:
            pieces = [part.split(lengths, dim=2) for part in (q, k, v)]
            y = torch.cat([F.scaled_dot_product_attention(*piece) for piece in zip(*pieces)], dim=2)
        return self.proj(y.transpose(1, 2).flatten(2))


class _Mlp(nn.Module):
    def __init__(self, hidden, inner):
        super().__init__()
        self.gate_proj, self.up_proj = nn.Linear(hidden, inner), nn.Linear(hidden, inner)
        self.down_proj = nn.Linear(inner, hidden)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class _Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        hidden = config["hidden_size"]
        self.norm1, self.norm2 = RmsNorm(hidden), RmsNorm(hidden)
        self.attn = _Attention(hidden, config["num_heads"])
        self.mlp = _Mlp(hidden, config["intermediate_size"])

    def forward(self, x, cos, sin, lengths):
        x = x + self.attn(self.norm1(x), cos, sin, lengths)
        return x + self.mlp(self.norm2(x))


class _PatchEmbed(nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.proj = nn.Conv3d(3, hidden, (2, PATCH, PATCH), bias=False)


class _Merger(nn.Module):
    def __init__(self, hidden, out):
        super().__init__()
        self.ln_q = RmsNorm(hidden)
        self.mlp = nn.Sequential(nn.Linear(4 * hidden, 4 * hidden), nn.GELU(), nn.Linear(4 * hidden, out))


class VisionTower(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.patch_embed = _PatchEmbed(config["hidden_size"])
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config["depth"]))
        self.merger = _Merger(config["hidden_size"], config["out_hidden_size"])

    def forward(self, patches, grid):
        """[batch, cells, out] of patches [batch, h * w, 1176] with grid (h, w) in patches."""
        rows, columns = grid[0] // 2, grid[1] // 2
        windows = window_order(rows, columns)[1]
        wide = torch.float64 if patches.dtype == torch.float64 else torch.float32
        order, cos, sin = _grid_tables(rows, columns, patches.device, wide)
        x = F.linear(patches, self.patch_embed.proj.weight.flatten(1))
        x = x.unflatten(1, (-1, 4))[:, order].flatten(1, 2)
        for index, block in enumerate(self.blocks):
            whole = index in self.config["fullatt_block_indexes"]
            x = block(x, cos, sin, [x.shape[1]] if whole else windows)
        x = self.merger.mlp(self.merger.ln_q(x).unflatten(1, (-1, 4)).flatten(2))
        return torch.empty_like(x).index_copy(1, order, x)
