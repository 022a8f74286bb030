"""Pictures of scenes by torch, whole batches on the device: the CPU only makes index arrays."""

import functools
import json

import torch

import safetensors_file
import words

SLOTS = 4  # items per scene


@functools.lru_cache(maxsize=None)
def resize_matrix(inputs, outputs):
    """[outputs, inputs] of Pillow's antialiased bicubic filter (a = -0.5) along one axis."""
    scale = inputs / outputs
    stretch = max(scale, 1.0)
    matrix = torch.zeros(outputs, inputs, dtype=torch.float64)
    for i in range(outputs):
        centre = (i + 0.5) * scale
        low = max(int(centre - 2 * stretch + 0.5), 0)
        high = min(int(centre + 2 * stretch + 0.5), inputs)
        u = ((torch.arange(low, high) - centre + 0.5) / stretch).abs()
        near = (1.5 * u - 2.5) * u * u + 1
        far = -0.5 * (((u - 5) * u + 8) * u - 4)
        weight = torch.where(u < 1, near, torch.where(u < 2, far, torch.zeros_like(u)))
        matrix[i, low:high] = weight / weight.sum()
    return matrix.to(torch.float32)


@functools.lru_cache(maxsize=None)
def _matrix_on(inputs, outputs, device, dtype):
    return resize_matrix(inputs, outputs).to(device, dtype)  # kept: a captured step copies nothing from the CPU


def resize(x, height, width):
    """[..., height, width] of [..., h, w]."""
    rows = _matrix_on(x.shape[-2], height, x.device, x.dtype)
    return rows @ (x @ _matrix_on(x.shape[-1], width, x.device, x.dtype).T)


class Atlas:
    """Glyphs, named ones first in the order of words.OBJECTS, then those without a name."""

    def __init__(self, path):
        tensors, metadata = safetensors_file.load(path)
        self.glyphs = tensors["glyphs"]  # [n, 128, 128, 4] uint8, straight alpha
        self.unknown_names = json.loads(metadata["unknown_names"])
        if self.glyphs.shape[0] < len(words.OBJECTS):
            raise ValueError(f"{path}: {self.glyphs.shape[0]} glyphs, expected at least {len(words.OBJECTS)}")

    @property
    def nameless(self):
        return self.glyphs.shape[0] - len(words.OBJECTS)


class Renderer:
    """Sprites at both sizes on a device, as one int32 (premultiplied RGBA) a pixel."""

    def __init__(self, atlas, device):
        self.small = self._sprites(atlas.glyphs, words.SMALL, device)
        self.large = self._sprites(atlas.glyphs, words.LARGE, device)

    @staticmethod
    def _sprites(glyphs, side, device):
        packed = []
        for part in glyphs.split(128):
            x = part.to(device).permute(0, 3, 1, 2).to(torch.float32)
            alpha = x[:, 3:]
            x = torch.cat((x[:, :3] * alpha / 255, alpha), dim=1)
            x = resize(x, side, side).round_().clamp_(0, 255)
            x = torch.minimum(x, x[:, 3:])  # premultiplied colours do not exceed alpha
            packed.append(x.to(torch.uint8).permute(0, 2, 3, 1).contiguous().view(torch.int32).flatten())
        return torch.cat(packed)

    def draw(self, background, items, height, width):
        """[batch, 3, height, width] f32 in 0..1, rounded to 8 bits.

        background [batch, 3] levels; items [batch, SLOTS, 4] int: sprite (-1: none), centre x, centre y, large or not.
        """
        batch, device = items.shape[0], items.device
        items = items.int()
        rows = torch.arange(height, device=device, dtype=torch.int32).view(1, height, 1)
        columns = torch.arange(width, device=device, dtype=torch.int32).view(1, 1, width)
        canvas = background.to(torch.float32)[:, None, None].expand(batch, height, width, 3)
        for slot in range(SLOTS):
            sprite, x, y, large = (items[:, slot, part].view(batch, 1, 1) for part in range(4))
            sides = ((self.small, words.SMALL, (sprite >= 0) & (large == 0)),)
            if slot == 0:  # a large object is alone
                sides += ((self.large, words.LARGE, (sprite >= 0) & (large != 0)),)
            for sprites, side, wanted in sides:
                v, u = rows - (y - side // 2), columns - (x - side // 2)
                inside = (v >= 0) & (v < side) & (u >= 0) & (u < side) & wanted
                index = (sprite.clamp_min(0) * side + v.clamp(0, side - 1)) * side + u.clamp(0, side - 1)
                rgba = torch.where(inside, sprites[index], 0)
                rgba = rgba.contiguous().view(torch.uint8).view(batch, height, width, 4).to(torch.float32)
                canvas = rgba[..., :3] + canvas * (1 - rgba[..., 3:] / 255)
        return (canvas.round().clamp(0, 255) / 255).permute(0, 3, 1, 2)


def scene_arrays(scenes):
    """(background [n, 3] uint8, items [n, SLOTS, 4] int16) of scenes."""
    background = torch.tensor([words.BACKGROUNDS[scene.background] for scene in scenes], dtype=torch.uint8)
    items = torch.full((len(scenes), SLOTS, 4), -1, dtype=torch.int16)
    for row, scene in zip(items, scenes):
        for slot, item in enumerate(scene.items):
            side = words.LARGE if item.large else words.SMALL
            x, y = words.place_pixels(item.place, scene.height, scene.width, side)
            row[slot] = torch.tensor((item.index, x, y, int(item.large)), dtype=torch.int16)
    return background, items
