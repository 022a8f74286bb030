"""Whether a picture shows what was asked, and an answer says what is right.

A picture is right when
  - at every place the nearest of all named sprites is the one asked for: least squared distance between the place's
    square and each sprite on the background asked for,
  - the background is the nearest of 13 to the median colour of what lies outside those squares,
  - no more than 3 % of all pixels are stray paint: outside the squares, and farther than 40 levels in some channel from
    the background asked for.
An answer is right when it equals the expected one, character by character.
"""

import dataclasses

import numpy

import words
from sprites import item_box

STRAY_LEVELS = 40
STRAY_LIMIT = 0.03


@dataclasses.dataclass(frozen=True)
class Verdict:
    objects: bool
    background: bool
    stray: float  # share of all pixels
    seen: tuple  # the nearest object's name at each item's place
    psnr: float  # dB to the ideal picture

    @property
    def right(self):
        return self.objects and self.background and self.stray <= STRAY_LIMIT


def psnr(picture, ideal):
    """dB between two uint8 pictures of one shape."""
    error = ((picture.astype(numpy.float64) - ideal.astype(numpy.float64)) ** 2).mean()
    return 99.0 if error == 0 else 10 * numpy.log10(255.0**2 / error)


def judge_picture(picture, scene, bank):
    """Verdict on a [height, width, 3] uint8 picture of `scene`."""
    if picture.shape != (scene.height, scene.width, 3):
        raise ValueError(f"picture of shape {picture.shape}, expected {(scene.height, scene.width, 3)}")
    outside = numpy.ones(picture.shape[:2], bool)
    seen = []
    for item in scene.items:
        side, box = item_box(item, scene)
        outside[box] = False
        square = picture[box].astype(numpy.float32).reshape(1, -1)
        distance = ((bank.on_background(side, scene.background) - square) ** 2).sum(1)
        seen.append(words.NAMES[int(distance.argmin())])
    asked = numpy.array(words.BACKGROUNDS[scene.background], numpy.float32)
    rest = picture[outside].astype(numpy.float32)
    colours = numpy.array(list(words.BACKGROUNDS.values()), numpy.float32)
    nearest = ((colours - numpy.median(rest, axis=0)) ** 2).sum(1).argmin()
    stray = (numpy.abs(rest - asked).max(1) > STRAY_LEVELS).sum() / outside.size
    return Verdict(
        objects=seen == [words.NAMES[item.index] for item in scene.items],
        background=list(words.BACKGROUNDS)[nearest] == scene.background,
        stray=float(stray),
        seen=tuple(seen),
        psnr=psnr(picture, bank.draw(scene)),
    )


def judge_answer(answer, right_answer):
    return answer.strip() == right_answer
