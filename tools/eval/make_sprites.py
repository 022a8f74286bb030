#!/usr/bin/env python3
"""Writes the demo model's judge: its objects' sprites in one picture, and a JSON file that names them.

  tools/eval/make_sprites.py tools/eval/demo_judge.json

Needs tools/demo_model, Debian's fonts-noto-color-emoji, and numpy, Pillow and fontTools. scene_judge.h has the format.
"""

import argparse
import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "demo_model"))

import numpy  # noqa: E402
from PIL import Image  # noqa: E402

import sprites  # noqa: E402
import words  # noqa: E402

SIDE = 28  # px: a quarter of the sprites in pictures, enough to tell 418 of them apart
COLUMNS = 21


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", help="the JSON file; the picture lies beside it")
    arguments = parser.parse_args()

    bank = sprites.SpriteBank().sprites(SIDE)
    rows = (len(bank) + COLUMNS - 1) // COLUMNS
    # Colours times alpha on the left, alpha on the right.
    atlas = numpy.zeros((rows * SIDE, 2 * COLUMNS * SIDE, 3), numpy.uint8)
    for index, sprite in enumerate(bank):
        top, left = index // COLUMNS * SIDE, index % COLUMNS * SIDE
        alpha = sprite[..., 3:].astype(numpy.float32) / 255
        atlas[top:top + SIDE, left:left + SIDE] = numpy.rint(sprite[..., :3] * alpha)
        left += COLUMNS * SIDE
        atlas[top:top + SIDE, left:left + SIDE] = sprite[..., 3:]
    picture = os.path.splitext(arguments.output)[0] + ".webp"
    Image.fromarray(atlas).save(picture, quality=90, method=6)

    places = {place: [words._COLUMN[place], words._ROW[place]] for place in words.PLACES}
    judge = {"version": 1, "sprites": os.path.basename(picture), "side": SIDE, "columns": COLUMNS,
             "small_px": words.SMALL, "large_px": words.LARGE, "edge_px": 64,
             "places": places, "backgrounds": words.BACKGROUNDS, "names": words.NAMES}
    with open(arguments.output, "w", encoding="utf-8") as file:
        parts = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in judge.items()]
        file.write("{" + ",\n ".join(parts) + "}\n")


if __name__ == "__main__":
    main()
