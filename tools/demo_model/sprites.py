"""Ideal pictures of scenes, without torch: what the judge compares with, and what the torch renderer must equal."""

import functools

import numpy

import words
from glyphs import EmojiFont, resize


class SpriteBank:
    """Sprites of the named objects."""

    def __init__(self, font=None):
        font = font or EmojiFont()
        self._glyphs = [font.glyph(character) for character, _, _ in words.OBJECTS]

    def __len__(self):
        return len(self._glyphs)

    @functools.lru_cache(maxsize=None)
    def sprites(self, side):
        """[objects, side, side, 4] uint8."""
        return numpy.stack([resize(glyph, side) for glyph in self._glyphs])

    @functools.lru_cache(maxsize=2)
    def on_background(self, side, background):
        """[objects, side * side * 3] float32: every sprite on a flat background."""
        rgba = self.sprites(side).astype(numpy.float32)
        alpha = rgba[..., 3:] / 255
        colour = numpy.array(words.BACKGROUNDS[background], numpy.float32)
        return (rgba[..., :3] * alpha + colour * (1 - alpha)).reshape(len(self), -1)

    def draw(self, scene):
        """[height, width, 3] uint8."""
        canvas = numpy.empty((scene.height, scene.width, 3), numpy.float32)
        canvas[:] = numpy.array(words.BACKGROUNDS[scene.background], numpy.float32)
        for item in scene.items:
            side, box = item_box(item, scene)
            rgba = self.sprites(side)[item.index].astype(numpy.float32)
            alpha = rgba[..., 3:] / 255
            canvas[box] = rgba[..., :3] * alpha + canvas[box] * (1 - alpha)
        return numpy.clip(numpy.rint(canvas), 0, 255).astype(numpy.uint8)


def item_box(item, scene):
    """(side, (rows, columns)) that an item's sprite covers."""
    side = words.LARGE if item.large else words.SMALL
    x, y = words.place_pixels(item.place, scene.height, scene.width, side)
    return side, (slice(y - side // 2, y + side // 2), slice(x - side // 2, x + side // 2))
