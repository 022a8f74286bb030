"""The Wan2.2 autoencoder for single frames in plain torch, parameters under the public names.

Single frames use one temporal tap of each causal 3-D kernel, so convolutions are 2-D here; export.py writes them with
their temporal axis of extent 1 ("image-only" files).
"""

import functools

import torch
from torch import nn
from torch.nn import functional as F

CHANNELS = 48
MEAN = (
    -0.2289,
    -0.0052,
    -0.1323,
    -0.2339,
    -0.2799,
    0.0174,
    0.1838,
    0.1557,
    -0.1382,
    0.0542,
    0.2813,
    0.0891,
    0.1570,
    -0.0098,
    0.0375,
    -0.1825,
    -0.2246,
    -0.1207,
    -0.0698,
    0.5109,
    0.2665,
    -0.2108,
    -0.2158,
    0.2502,
    -0.2055,
    -0.0322,
    0.1109,
    0.1567,
    -0.0729,
    0.0899,
    -0.2799,
    -0.1230,
    -0.0313,
    -0.1649,
    0.0117,
    0.0723,
    -0.2839,
    -0.2083,
    -0.0520,
    0.3748,
    0.0152,
    0.1957,
    0.1433,
    -0.2944,
    0.3573,
    -0.0548,
    -0.1681,
    -0.0667,
)
STD = (
    0.4765,
    1.0364,
    0.4514,
    1.1677,
    0.5313,
    0.4990,
    0.4818,
    0.5013,
    0.8158,
    1.0344,
    0.5894,
    1.0901,
    0.6885,
    0.6165,
    0.8454,
    0.4978,
    0.5759,
    0.3523,
    0.7135,
    0.6804,
    0.5833,
    1.4146,
    0.8986,
    0.5659,
    0.7069,
    0.5338,
    0.4889,
    0.4917,
    0.4069,
    0.4999,
    0.6866,
    0.4093,
    0.5709,
    0.6065,
    0.6415,
    0.4944,
    0.5726,
    1.2042,
    0.5458,
    1.6887,
    0.3971,
    1.0600,
    0.3943,
    0.5537,
    0.5444,
    0.4089,
    0.7468,
    0.7744,
)


@functools.lru_cache(maxsize=None)
def latent_constants(device="cpu", dtype=torch.float32):
    """(mean, 1 / std) [48, 1, 1], each rounded to bf16 as the reference holds them."""
    mean = torch.tensor(MEAN, dtype=torch.float64).to(torch.bfloat16)
    inverse = 1 / torch.tensor(STD, dtype=torch.float64).to(torch.bfloat16)
    return tuple(c.view(-1, 1, 1).to(dtype).to(device) for c in (mean, inverse))


class Norm(nn.Module):
    """x / max(|x|, 1e-12) * sqrt(C) * gamma over the channels of [batch, C, h, w]."""

    def __init__(self, channels):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, x):
        wide = x if x.dtype == torch.float64 else x.float()
        length = wide.square().sum(1, keepdim=True).sqrt().clamp_min(1e-12)
        return (wide / length * (x.shape[1] ** 0.5) * self.gamma.to(wide.dtype)).to(x.dtype)


class ResBlock(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.residual = nn.Sequential(
            Norm(inputs),
            nn.SiLU(),
            nn.Conv2d(inputs, outputs, 3, padding=1),
            Norm(outputs),
            nn.SiLU(),
            nn.Identity(),
            nn.Conv2d(outputs, outputs, 3, padding=1),
        )
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, x):
        return self.residual(x) + (x if self.shortcut is None else self.shortcut(x))


class Attention(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.norm = Norm(channels)
        self.to_qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj = nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        q, k, v = self.to_qkv(self.norm(x)).flatten(2).transpose(1, 2).chunk(3, dim=-1)
        y = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
        return x + self.proj(y.transpose(1, 2).unflatten(2, x.shape[2:]))


class Resample(nn.Module):
    """Half or double side; the convolution is resample.1, as in the public file."""

    def __init__(self, channels, down):
        super().__init__()
        self.down = down
        self.resample = nn.Sequential(
            nn.Identity(), nn.Conv2d(channels, channels, 3, stride=2 if down else 1, padding=0 if down else 1)
        )

    def forward(self, x):
        x = F.pad(x, (0, 1, 0, 1)) if self.down else x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        return self.resample(x)


class DownStage(nn.Module):
    def __init__(self, inputs, outputs, index):
        super().__init__()
        blocks = [ResBlock(inputs, outputs), ResBlock(outputs, outputs)]
        self.index = index
        self.downsamples = nn.Sequential(*blocks, *([Resample(outputs, True)] if index < 3 else []))

    def forward(self, x):
        y = self.downsamples(x)
        if self.index == 3:
            return y + x
        pooled = F.avg_pool2d(x, 2)
        if self.index > 0:  # a zero frame is averaged with the picture: even channels are 0, odd ones the picture's
            pooled = torch.stack((torch.zeros_like(pooled), pooled), dim=2).flatten(1, 2)
        return y + pooled


class UpStage(nn.Module):
    def __init__(self, inputs, outputs, index):
        super().__init__()
        blocks = [ResBlock(inputs, outputs), ResBlock(outputs, outputs), ResBlock(outputs, outputs)]
        self.index = index
        self.upsamples = nn.Sequential(*blocks, *([Resample(outputs, False)] if index < 3 else []))

    def forward(self, x):
        y = self.upsamples(x)
        if self.index == 3:
            return y
        if self.index < 2:
            return y + x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        even, odd = x[:, 0::2], x[:, 1::2]  # even channels feed even rows, odd channels odd rows
        rows = torch.stack((even, odd), dim=3).flatten(2, 3)
        return y + rows.repeat_interleave(2, dim=3)


class Encoder(nn.Module):
    def __init__(self, base):
        super().__init__()
        widths = [base, base, 2 * base, 4 * base, 4 * base]
        self.conv1 = nn.Conv2d(12, base, 3, padding=1)
        self.downsamples = nn.Sequential(*(DownStage(widths[i], widths[i + 1], i) for i in range(4)))
        self.middle = nn.Sequential(
            ResBlock(widths[4], widths[4]), Attention(widths[4]), ResBlock(widths[4], widths[4])
        )
        self.head = nn.Sequential(Norm(widths[4]), nn.SiLU(), nn.Conv2d(widths[4], 2 * CHANNELS, 3, padding=1))

    def forward(self, x):
        return self.head(self.middle(self.downsamples(self.conv1(x))))


class Decoder(nn.Module):
    def __init__(self, base):
        super().__init__()
        widths = [4 * base, 4 * base, 4 * base, 2 * base, base]
        self.conv1 = nn.Conv2d(CHANNELS, widths[0], 3, padding=1)
        self.middle = nn.Sequential(
            ResBlock(widths[0], widths[0]), Attention(widths[0]), ResBlock(widths[0], widths[0])
        )
        self.upsamples = nn.Sequential(*(UpStage(widths[i], widths[i + 1], i) for i in range(4)))
        self.head = nn.Sequential(Norm(widths[4]), nn.SiLU(), nn.Conv2d(widths[4], 12, 3, padding=1))

    def forward(self, z):
        return self.head(self.upsamples(self.middle(self.conv1(z))))


def patchify(x):
    """Channel 4 c + 2 dx + dy of 2x2 pixels."""
    batch, channels, height, width = x.shape
    x = x.view(batch, channels, height // 2, 2, width // 2, 2).permute(0, 1, 5, 3, 2, 4)
    return x.reshape(batch, 4 * channels, height // 2, width // 2)


def unpatchify(x):
    batch, channels, height, width = x.shape
    x = x.view(batch, channels // 4, 2, 2, height, width).permute(0, 1, 4, 3, 5, 2)
    return x.reshape(batch, channels // 4, 2 * height, 2 * width)


class Autoencoder(nn.Module):
    def __init__(self, encoder_base=32, decoder_base=32):
        super().__init__()
        self.encoder, self.decoder = Encoder(encoder_base), Decoder(decoder_base)
        self.conv1 = nn.Conv2d(2 * CHANNELS, 2 * CHANNELS, 1)
        self.conv2 = nn.Conv2d(CHANNELS, CHANNELS, 1)

    def moments(self, pixels):
        """(mean, log variance) [batch, 48, h, w] of pixels [batch, 3, H, W] in -1..1."""
        return self.conv1(self.encoder(patchify(pixels))).chunk(2, dim=1)

    def encode(self, pixels):
        """Normalised latents: (mu - mean) / std."""
        mean, inverse = latent_constants(pixels.device, pixels.dtype)
        return (self.moments(pixels)[0].to(pixels.dtype) - mean) * inverse

    def decode(self, latents):
        """Pixels, not clamped, of normalised latents."""
        mean, inverse = latent_constants(latents.device, latents.dtype)
        return unpatchify(self.decoder(self.conv2(latents / inverse + mean)))


def rows_of(latents):
    """[batch, h * w, 48] of [batch, 48, h, w]."""
    return latents.flatten(2).transpose(1, 2)


def grid_of(rows, height, width):
    """The inverse: [batch, 48, h, w] of rows; height, width in latent rows."""
    return rows.transpose(1, 2).unflatten(2, (height, width))
