#!/usr/bin/env python3
"""Fills what a model does with the requests of models/demo/expected into their lists: likeness of its pictures and edits
to the ideal ones, its answers and how sure it is of them. Plain torch, f32, weights as the engine expands them."""

import argparse
import json
import os
import sys

import numpy
import torch
from PIL import Image

import bpe
import judge
import model_files
import preview
import render
import sampler

ROWS = (16, 16)
SEED = 42


def read(folder, name):
    """[1, 3, H, W] in 0..1."""
    picture = Image.open(os.path.join(folder, name)).convert("RGB")
    return torch.from_numpy(numpy.array(picture)).permute(2, 0, 1)[None].float() / 255


def noise(condition):
    """The target's start noise; an edit's condition rows draw theirs first."""
    generator = torch.Generator().manual_seed(SEED)
    rows = ROWS[0] * ROWS[1]
    return torch.randn(2 * rows if condition else rows, 48, generator=generator)[None, -rows:]


def see(engine, pixels):
    return engine.see((render.resize(pixels, 224, 224) * 255).round().clamp(0, 255) / 255)


def likeness(engine, folder, entry, latents):
    drawn = preview.to_bytes(engine.decode(latents, ROWS)).numpy()[0]
    ideal = numpy.array(Image.open(os.path.join(folder, entry["picture"])).convert("RGB"))
    entry["psnr_seen_db"] = round(float(judge.psnr(drawn, ideal)), 1)
    print(entry["psnr_seen_db"], entry.get("prompt", entry.get("instruction")), flush=True)


def fill_prompt(engine, folder, entry):
    likeness(engine, folder, entry, engine.generate([entry["prompt"]], noise(False), ROWS))


def fill_edit(engine, folder, entry):
    pixels = read(folder, entry["source"])
    features, grid = see(engine, pixels)
    source = {"features": features, "grid": grid, "source": engine.encode(pixels * 2 - 1)}
    latents = engine.generate([entry["instruction"]], noise(True), ROWS, task="edit", **source)
    likeness(engine, folder, entry, latents)


def fill_question(engine, folder, entry):
    features, grid = see(engine, read(folder, entry["picture"]))
    tokenizer = engine.parts.tokenizer
    limit = tokenizer.special[bpe.ADDED[-1]] + 1
    answer = engine.answer([entry["question"]], features, grid)[0]
    tokens = tokenizer.encode(answer)
    logits = engine.answer_logits([entry["question"]], features, grid, [tokens])[0][:, :limit]
    best = logits.topk(2, dim=1).values
    entry["answer_seen"], entry["least_margin"] = answer, round(float((best[:, 0] - best[:, 1]).min()), 2)
    print(entry["least_margin"], entry["question"], answer, answer == entry["right_answer"], flush=True)


FILL = {"questions": fill_question, "prompts": fill_prompt, "edits": fill_edit}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model_dir", required=True, help="its expected/ is brought up to date")
    arguments = parser.parse_args()
    engine = sampler.Engine(model_files.Parts.load(arguments.model_dir, weights=model_files.BF16))
    folder = os.path.join(arguments.model_dir, "expected")
    for name, fill in FILL.items():
        path = os.path.join(folder, name + ".json")
        with open(path, encoding="utf-8") as file:
            entries = json.load(file)
        for entry in entries:
            fill(engine, folder, entry)
        with open(path, "w", encoding="utf-8") as file:
            file.write(json.dumps(entries, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
