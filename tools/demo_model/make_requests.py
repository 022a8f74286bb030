#!/usr/bin/env python3
"""Writes a set of unseen requests with what is right: prompts, edits and questions, each holding an (object, place) or
(object, background) pair that training never had. The format is that of models/demo/expected, which lancet-calibrate and
lancet-eval read. Without torch."""

import argparse
import collections
import json
import os
import random

from PIL import Image

import captions
import glyphs
import sprites
import tasks
import words
from scenes import SceneSampler, unknown_name_is_held_out


def scene_facts(scene):
    return {
        "objects": [
            {"name": words.NAMES[item.index], "place": item.place, "large": item.large} for item in scene.items
        ],
        "background": scene.background,
    }


class RequestSetWriter:
    def __init__(self, folder, bank):
        self.folder, self.bank = folder, bank
        os.makedirs(folder, exist_ok=True)

    def picture(self, name, scene):
        Image.fromarray(self.bank.draw(scene)).save(os.path.join(self.folder, name))
        return name

    def write(self, name, entries):
        with open(os.path.join(self.folder, name + ".json"), "w", encoding="utf-8") as file:
            json.dump(entries, file, indent=1)

    def prompts(self, sampler, count, wide_share, unknown_names=(), unknown_share=0.0):
        entries = []
        for number in range(count):
            height, width = (
                words.SIZES[0] if sampler.rng.random() >= wide_share else sampler.rng.choice(words.SIZES[1:])
            )
            prompt, scene = captions.sample_prompt(sampler, list(unknown_names), height, width, unknown_share)
            entry = {
                "prompt": prompt,
                "picture": self.picture(f"picture_{number:03}.png", scene),
                **scene_facts(scene),
            }
            if (height, width) != words.SIZES[0]:
                entry.update(width=width, height=height)
            entries.append(entry)
        self.write("prompts", entries)
        return entries

    def edits(self, sampler, per_kind):
        entries = []
        for kind, _ in tasks.EDIT_KINDS:
            for _ in range(per_kind):
                _, text, source, target = tasks.sample_edit(sampler, kind)
                number = len(entries)
                entries.append(
                    {
                        "instruction": text,
                        "kind": kind,
                        "source": self.picture(f"edit_{number:03}.source.png", source),
                        "picture": self.picture(f"edit_{number:03}.png", target),
                        **scene_facts(target),
                    }
                )
        self.write("edits", entries)
        return entries

    def questions(self, sampler, per_kind):
        entries, counts = [], collections.Counter()
        while sum(counts.values()) < per_kind * len(tasks.QUESTION_KINDS):
            scene = sampler.placed()
            kind = min((name for name, _ in tasks.QUESTION_KINDS), key=lambda name: counts[name])
            kind, question, answer = tasks.sample_question(sampler, scene, kind=kind)
            number = sum(counts.values())
            counts[kind] += 1
            entries.append(
                {
                    "question": question,
                    "kind": kind,
                    "right_answer": answer,
                    "picture": self.picture(f"question_{number:03}.png", scene),
                }
            )
        self.write("questions", entries)
        return entries


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True)
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--edits", type=int, default=60, help="of every kind")
    parser.add_argument("--questions", type=int, default=60, help="of every kind")
    parser.add_argument("--wide_share", type=float, default=0.25, help="prompts of 256 x 384 or 384 x 256")
    parser.add_argument(
        "--training",
        action="store_true",
        help="only pairs that training has, for calibration sets that do not meet the judge's",
    )
    parser.add_argument("--unknown_share", type=float, default=0.0, help="prompts that name something unknown")
    parser.add_argument("--seed", type=int, default=2024)
    parser.add_argument("--font", default=glyphs.FONT)
    arguments = parser.parse_args()
    sampler = SceneSampler(random.Random(arguments.seed), held_out=not arguments.training)
    writer = RequestSetWriter(arguments.out, sprites.SpriteBank(glyphs.EmojiFont(arguments.font)))
    names = []
    if arguments.unknown_share > 0:
        names = [name for name in glyphs.unknown_names() if unknown_name_is_held_out(name) != arguments.training]
    prompts = writer.prompts(sampler, arguments.prompts, arguments.wide_share, names, arguments.unknown_share)
    edits = writer.edits(sampler, arguments.edits)
    questions = writer.questions(sampler, arguments.questions)
    print(f"{len(prompts)} prompts, {len(edits)} edits, {len(questions)} questions: {arguments.out}")


if __name__ == "__main__":
    main()
