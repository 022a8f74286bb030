"""Emoji pictures out of NotoColorEmoji.ttf (Debian: fonts-noto-color-emoji), without torch.

The font holds 136 x 128 colour bitmaps (table CBDT). A sprite is the middle 128 columns of one, reduced or enlarged to
its side with Pillow's bicubic filter on premultiplied colours.
"""

import io
import re

import numpy
from fontTools.ttLib import TTFont
from PIL import Image

import words

FONT = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
GLYPH = 128  # px, the side of what is cut out


class EmojiFont:
    """Single-character glyphs of the font."""

    def __init__(self, path=FONT):
        font = TTFont(path)
        self._names = font.getBestCmap()
        self._bitmaps = font["CBDT"].strikeData[0]

    def characters(self):
        return sorted(
            chr(code)
            for code, name in self._names.items()
            if name in self._bitmaps and code > 0xFF and not 0x1F1E6 <= code <= 0x1F1FF
        )

    def glyph(self, character):
        """RGBA Image of 128 x 128; ValueError when the font lacks it."""
        name = self._names.get(ord(character))
        if name is None or name not in self._bitmaps:
            raise ValueError(f"the font has no bitmap for U+{ord(character):04X}")
        picture = Image.open(io.BytesIO(self._bitmaps[name].imageData)).convert("RGBA")
        left = (picture.width - GLYPH) // 2
        top = (picture.height - GLYPH) // 2
        return picture.crop((left, top, left + GLYPH, top + GLYPH))


def resize(glyph, side):
    """[side, side, 4] uint8 of an RGBA Image."""
    return numpy.array(glyph.resize((side, side), Image.BICUBIC))


def unknown_names():
    """Names of emoji that are none of ours, for prompts about things the model does not know; needs PyPI's `emoji`."""
    import emoji

    known = set(words.NAMES) | {p for p in words.PLURALS if p}
    known_words = {word for name in known for word in name.split()}
    names = set()
    for entry in emoji.EMOJI_DATA.values():
        name = entry["en"].strip(":").replace("_", " ").replace("-", " ").lower()
        if re.fullmatch(r"[a-z]{3,12}( [a-z]{3,12})?", name) and not set(name.split()) & known_words:
            names.add(name)
    return sorted(names)


def nameless_characters(font, least_distance=30.0):
    """Emoji that are none of ours by name and by looks, so that 'an unknown object' is a fair answer: their names share no
    word with a known one, and their root mean square distance (8-bit levels, on white, 32 px) to every named one is at
    least `least_distance`. Needs PyPI's `emoji`."""
    import emoji

    def small(character):
        rgba = resize(font.glyph(character), 32).astype(numpy.float32)
        alpha = rgba[..., 3:] / 255
        return (rgba[..., :3] * alpha + 255 * (1 - alpha)).reshape(-1), alpha.mean()

    def words_of(character):
        entry = emoji.EMOJI_DATA.get(character) or emoji.EMOJI_DATA.get(character + "\ufe0f")
        return set(entry["en"].strip(":").lower().split("_")) if entry else None

    named = [character for character, _, _ in words.OBJECTS]
    known_words = {word for name in words.NAMES for word in name.split()} | {"face", "hand", "person", "man", "woman"}
    bank = numpy.stack([small(character)[0] for character in named])
    chosen = []
    for character in font.characters():
        said = words_of(character)
        if character in named or said is None or said & known_words:
            continue
        picture, cover = small(character)
        if cover > 0.15 and numpy.sqrt(((bank - picture) ** 2).mean(1)).min() >= least_distance:
            chosen.append(character)
    return chosen
