"""Pictures on the way: a fixed set of prompts and edits drawn with the averaged weights, as one PNG."""

import os
import random
import struct
import zlib

import torch

import captions
import model_files
import render
import sampler
import tasks
from scenes import SceneSampler

PROMPTS, EDITS, STEPS = 10, 5, 12


def write_png(path, pixels):
    """[height, width, 3] uint8."""
    height, width, _ = pixels.shape
    raw = bytes(pixels.flatten().tolist())
    lines = b"".join(b"\0" + raw[row * width * 3 : (row + 1) * width * 3] for row in range(height))

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(
            b"\x89PNG\r\n\x1a\n"
            + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(lines, 6))
            + chunk(b"IEND", b"")
        )


def to_bytes(pixels):
    """[batch, H, W, 3] uint8 of [batch, 3, H, W] in -1..1, as the product rounds."""
    return ((pixels.float().clamp(-1, 1) * 0.5 + 0.5) * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


@torch.no_grad()
def write(trainer, path, log):
    """Rows of the sheet: ideal pictures above drawn ones, for prompts and for edits. Logs the mean PSNR of both."""
    rng = random.Random(7)
    held_out = SceneSampler(rng, held_out=True)
    prompts = [captions.sample_prompt(held_out, []) for _ in range(PROMPTS)]
    edits = [tasks.sample_edit(held_out)[1:] for _ in range(EDITS)]
    networks = trainer.averaged()
    parts = model_files.Parts(networks.trunk, networks.vision, trainer.autoencoder, trainer.tokenizer, trainer.config)
    engine = sampler.Engine(parts, trainer.device)

    def draw(scenes):
        background, items = (x.to(trainer.device) for x in render.scene_arrays(scenes))
        return trainer.renderer.draw(background, items, 256, 256)

    generator = torch.Generator().manual_seed(42)
    noise = torch.randn(PROMPTS + EDITS, 256, 48, generator=generator).to(trainer.device)
    options = {"steps": STEPS, "solver": sampler.DPMPP_2M}
    with trainer.autocast():
        latents = engine.generate([text for text, _ in prompts], noise[:PROMPTS], (16, 16), **options)
        source = draw([source for _, source, _ in edits])
        small = render.resize(source, 224, 224)
        features, grid = engine.see(small)
        edited = engine.generate(
            [text for text, _, _ in edits],
            noise[PROMPTS:],
            (16, 16),
            task="edit",
            features=features,
            grid=grid,
            source=engine.encode(source * 2 - 1),
            **options,
        )
        drawn = engine.decode(torch.cat((latents, edited)).float(), (16, 16))
    ideal = draw([scene for _, scene in prompts] + [target for _, _, target in edits]) * 2 - 1
    error = (to_bytes(drawn).float() - to_bytes(ideal).float()).square().mean((1, 2, 3)).clamp_min(1e-3)
    decibels = 10 * torch.log10(255.0**2 / error)
    log(
        f"preview {os.path.basename(path)}: {decibels[:PROMPTS].mean():.1f} dB to ideal pictures, "
        f"{decibels[PROMPTS:].mean():.1f} dB to ideal edits"
    )
    rows = [to_bytes(part).cpu() for part in (ideal, drawn)]
    sheet = torch.cat([torch.cat(list(row), dim=1) for row in rows], dim=0)
    write_png(path, sheet[::2, ::2])
