#!/usr/bin/env python3
"""Recomputes a model's end-to-end goldens in plain torch and compares (write_goldens.py writes new ones).

Shares no code with the product: whole sequences with a mask instead of a KV cache, everything in fp64 (or --dtype
float32), only tables rounded to bf16. Cases are in the format of models/demo/golden.
"""

import argparse
import json
import os
import sys

import torch

import preview
import safetensors_file
import sampler
from model_files import Parts

# Relative RMS error that each dtype may have against a stored fp64 result (which is stored in f32).
TOLERANCE = {"float64": 2e-6, "float32": 5e-5}


def relative(x, reference):
    x, reference = x.to(torch.float64).cpu(), reference.to(torch.float64)
    return float((x - reference).norm() / reference.norm())


def read_picture(path):
    """[1, 3, H, W] in 0..255."""
    from PIL import Image
    import numpy

    return torch.from_numpy(numpy.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)[None].to(torch.float64)


def vision_pixels(path, size):
    """The vision stream's crop of a picture whose aspect is that of the bucket: Pillow's bicubic, as the product."""
    from PIL import Image
    import numpy

    picture = Image.open(path).convert("RGB").resize((size[1], size[0]), Image.BICUBIC)
    return torch.from_numpy(numpy.array(picture)).permute(2, 0, 1)[None].to(torch.float64) / 255


class Case:
    def __init__(self, folder, name):
        self.folder, self.name = folder, name
        with open(os.path.join(folder, name + ".json"), encoding="utf-8") as file:
            self.facts = json.load(file)
        self.tensors, _ = safetensors_file.load(os.path.join(folder, name + ".safetensors"))

    @property
    def picture(self):
        return os.path.join(self.folder, self.name + ".png")

    @property
    def source(self):
        return os.path.join(self.folder, self.name + ".source.png")


def case_names(folder):
    """Cases of a folder, in order."""
    return sorted(name[: -len(".safetensors")] for name in os.listdir(folder) if name.endswith(".safetensors"))


def run_picture(engine, case, gains=None):
    """{quantity: value} of a text-to-image or edit case."""
    facts, results, extra = case.facts, {}, {}
    latent = tuple(facts["latent_grid"][1:])
    task = "edit" if facts["task"] == "image_edit" else "generate"
    if task == "edit":
        height, width = (14 * side for side in facts["vit_patch_grid"][1:])
        features, grid = engine.see(vision_pixels(case.source, (height, width)))
        pixels = read_picture(case.source) / 127.5 - 1
        if pixels.shape[2:] != (16 * latent[0], 16 * latent[1]):
            raise ValueError(f"{case.source}: {tuple(pixels.shape[2:])}, expected {(16 * latent[0], 16 * latent[1])}")
        source = engine.encode(pixels)
        results["vit_features"], results["source_latents"] = features[0], source[0]
        extra = {"features": features, "grid": grid, "source": source}
    noise = case.tensors["noise"].to(engine.dtype)[None]
    velocity = engine.velocities(task, [facts["prompt"]], latent, **extra)
    first = noise.to(engine.device)
    results["v_cond"] = velocity(first, 1.0)[0]
    results["v_uncond"] = velocity(first, 1.0, conditional=False)[0]
    trace = []
    engine.generate(
        [facts["prompt"]],
        noise,
        latent,
        steps=facts["steps"],
        shift=facts["shift"],
        guidance=facts["cfg"],
        task=task,
        trace=trace,
        gains=gains,
        **extra,
    )
    results["latents"] = torch.stack([first[0]] + [x[0] for x in trace])
    results["pixels"] = engine.decode(trace[-1], latent)[0]
    return results


def run_answer(engine, case):
    facts = case.facts
    height, width = (14 * side for side in facts["vit_patch_grid"][1:])
    features, grid = engine.see(vision_pixels(case.source, (height, width)))
    count = case.tensors["fp64.logits"].shape[0]
    answer = facts["answer_ids"]["fp64"][: count - 1]
    logits = engine.answer_logits([facts["prompt"]], features, grid, [answer])[0]
    return {"vit_features": features[0], "logits": logits[:, : case.tensors["fp64.logits"].shape[1]]}


def compare(case, results, tolerance):
    """Prints a line a quantity; True when all are within the tolerance."""
    good = True
    for quantity, value in results.items():
        reference = case.tensors.get("fp64." + quantity)
        if reference is None:
            continue
        error = relative(value, reference)
        good &= error <= tolerance
        print(
            f"{case.name:14} {quantity:15} {error:9.2e}  limit {tolerance:.0e}  {'ok' if error <= tolerance else 'FAILED'}",
            flush=True,
        )
    return good


def picture_of(results):
    """[height, width, 3] uint8 of the decoded pixels, as the product rounds."""
    return preview.to_bytes(results["pixels"].float()[None])[0].cpu()


def compare_picture(case, results):
    """The picture is stored in 8 bits: at most one level off, and that rarely (values on the edge of rounding)."""
    difference = (picture_of(results).int() - read_picture(case.picture)[0].permute(1, 2, 0).int()).abs()
    share = float((difference > 0).double().mean())
    good = int(difference.max()) <= 1 and share <= 1e-3
    print(
        f"{case.name:14} {'picture':15} {share:9.2e}  limit 1e-03  {'ok' if good else 'FAILED'} (share of levels off by "
        f"one; most {int(difference.max())})"
    )
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model_dir", required=True)
    parser.add_argument("--golden", help="folder of cases; default: MODEL_DIR/golden")
    parser.add_argument("--case", action="append", help="run only these; default: all")
    parser.add_argument("--dtype", choices=sorted(TOLERANCE), default="float64")
    arguments = parser.parse_args()
    folder = arguments.golden or os.path.join(arguments.model_dir, "golden")
    engine = sampler.Engine(Parts.load(arguments.model_dir, getattr(torch, arguments.dtype)))
    names = arguments.case or case_names(folder)
    good = True
    for name in names:
        case = Case(folder, name)
        results = run_answer(engine, case) if case.facts["task"] == "x2t_image" else run_picture(engine, case)
        good &= compare(case, results, TOLERANCE[arguments.dtype])
        if "pixels" in results:
            good &= compare_picture(case, results)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
