#!/usr/bin/env python3
"""Serves a set of requests (make_requests.py) with the torch implementation and judges: the trunk before quantisation, or
quantised and expanded. lancet-eval does the same with the product in all its modes."""

import argparse
import collections
import json
import os
import sys
import time

import numpy
import torch
from PIL import Image

import glyphs
import judge
import preview
import render
import run_loop
import sampler
import sprites
import words
from model_files import Parts
from scenes import Item, make_scene


def scene_of(entry):
    items = [Item(words.INDEX[one["name"]], one["place"], one["large"]) for one in entry["objects"]]
    return make_scene(entry["background"], items, entry.get("height", 256), entry.get("width", 256))


def read_entries(folder, name):
    path = os.path.join(folder, name + ".json")
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as file:
        return json.load(file)


class Evaluation:
    def __init__(self, engine, folder, options, batch, out, autocast):
        self.engine, self.folder, self.options, self.batch, self.out = engine, folder, options, batch, out
        self.autocast = autocast
        self.bank = sprites.SpriteBank(glyphs.EmojiFont())

    def read(self, name):
        """[1, 3, H, W] in 0..1."""
        picture = Image.open(os.path.join(self.folder, name)).convert("RGB")
        return torch.from_numpy(numpy.array(picture)).permute(2, 0, 1)[None].float() / 255

    def groups(self, entries):
        """Batches of entries with one picture size."""
        by_size = collections.defaultdict(list)
        for entry in entries:
            by_size[entry.get("height", 256), entry.get("width", 256)].append(entry)
        for size, members in by_size.items():
            for start in range(0, len(members), self.batch):
                yield size, members[start : start + self.batch]

    def draw(self, entries, task):
        """[(entry, Verdict)] of prompts or edits."""
        judged = []
        for (height, width), group in self.groups(entries):
            latent = height // 16, width // 16
            source, texts = {}, [entry["prompt" if task == "generate" else "instruction"] for entry in group]
            with self.autocast():
                if task == "edit":
                    pixels = torch.cat([self.read(entry["source"]) for entry in group]).to(self.engine.device)
                    small = (render.resize(pixels, 224, 224) * 255).round().clamp(0, 255) / 255
                    features, grid = self.engine.see(small)
                    source = {"features": features, "grid": grid, "source": self.engine.encode(pixels * 2 - 1)}
                noise = torch.stack(
                    [
                        torch.randn(
                            latent[0] * latent[1], 48, generator=torch.Generator().manual_seed(entry.get("seed", 42))
                        )
                        for entry in group
                    ]
                )
                latents = self.engine.generate(texts, noise, latent, task=task, **self.options, **source)
                pictures = preview.to_bytes(self.engine.decode(latents.float(), latent)).cpu().numpy()
            for entry, picture in zip(group, pictures):
                judged.append((entry, judge.judge_picture(picture, scene_of(entry), self.bank)))
                if self.out:
                    Image.fromarray(picture).save(os.path.join(self.out, "drawn_" + entry["picture"]))
        return judged

    def answer(self, entries):
        judged = []
        for _, group in self.groups(entries):
            with self.autocast():
                pixels = torch.cat([self.read(entry["picture"]) for entry in group]).to(self.engine.device)
                features, grid = self.engine.see((render.resize(pixels, 224, 224) * 255).round().clamp(0, 255) / 255)
                answers = self.engine.answer([entry["question"] for entry in group], features, grid)
            judged += [
                (entry, answer, judge.judge_answer(answer, entry["right_answer"]))
                for entry, answer in zip(group, answers)
            ]
        return judged


def share(flags):
    flags = list(flags)
    return f"{sum(flags)}/{len(flags)} = {100 * sum(flags) / len(flags):.1f} %"


def report(judged_prompts, judged_edits, judged_answers):
    """Lines of text and {figure: value}."""
    if judged_prompts:
        large = [v.psnr for e, v in judged_prompts if any(o["large"] for o in e["objects"])]
        small = [v.psnr for e, v in judged_prompts if not any(o["large"] for o in e["objects"])]
        print(
            f"pictures right {share(v.right for _, v in judged_prompts)}, PSNR to the ideal: "
            f"{numpy.mean(small or [0]):.1f} dB, large objects {numpy.mean(large or [0]):.1f} dB ({len(large)})"
        )
        for entry, verdict in judged_prompts:
            if not verdict.right:
                print(f"  wrong: {entry['prompt']!r} shows {', '.join(verdict.seen)}, stray {verdict.stray:.3f}")
    if judged_edits:
        print(
            f"edits right {share(v.right for _, v in judged_edits)}, PSNR to the ideal "
            f"{numpy.mean([v.psnr for _, v in judged_edits]):.1f} dB"
        )
        for kind in dict.fromkeys(entry["kind"] for entry, _ in judged_edits):
            print(f"  {kind}: {share(v.right for e, v in judged_edits if e['kind'] == kind)}")
    if judged_answers:
        print(f"answers exact {share(good for _, _, good in judged_answers)}")
        for kind in dict.fromkeys(entry.get("kind", "any") for entry, _, _ in judged_answers):
            print(f"  {kind}: {share(good for e, _, good in judged_answers if e.get('kind', 'any') == kind)}")
        for entry, answer, good in judged_answers:
            if not good:
                print(f"  wrong: {entry['question']!r} -> {answer!r}, right is {entry['right_answer']!r}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model_dir", required=True)
    parser.add_argument("--requests", required=True, help="folder that make_requests.py wrote")
    parser.add_argument("--source", action="store_true", help="the trunk before quantisation")
    parser.add_argument("--most", type=int, default=1000, help="of each kind")
    parser.add_argument("--solver", choices=(sampler.EULER, sampler.DPMPP_2M), default=sampler.EULER)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", help="folder for the pictures drawn")
    arguments = parser.parse_args()
    device = run_loop.device_of(arguments.device)
    start = time.monotonic()
    if arguments.out:
        os.makedirs(arguments.out, exist_ok=True)
    engine = sampler.Engine(Parts.load(arguments.model_dir, source=arguments.source), device)

    def autocast():
        return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")

    evaluation = Evaluation(
        engine,
        arguments.requests,
        {"steps": arguments.steps, "solver": arguments.solver},
        arguments.batch,
        arguments.out,
        autocast,
    )
    prompts, edits, questions = (
        read_entries(arguments.requests, name)[: arguments.most] for name in ("prompts", "edits", "questions")
    )
    print(f"{arguments.solver}, {arguments.steps} steps, {device.type}")
    report(evaluation.draw(prompts, "generate"), evaluation.draw(edits, "edit"), evaluation.answer(questions))
    print(f"{time.monotonic() - start:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
