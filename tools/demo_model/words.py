"""What the demo model knows: objects, places, backgrounds, and how they are said."""

import os
import re

HERE = os.path.dirname(os.path.abspath(__file__))

# Sprites are centred at 64 / 128 / 192 px from the edges of a 256-px side, so that every place has the same phase on
# the 16-px latent grid. On a side of 384 px the outer places keep their distance from the edges.
PLACES = ("left", "right", "top", "bottom", "centre", "top left", "top right", "bottom left", "bottom right")
_COLUMN = {
    "left": 0,
    "right": 2,
    "top": 1,
    "bottom": 1,
    "centre": 1,
    "top left": 0,
    "top right": 2,
    "bottom left": 0,
    "bottom right": 2,
}
_ROW = {
    "left": 1,
    "right": 1,
    "top": 0,
    "bottom": 2,
    "centre": 1,
    "top left": 0,
    "top right": 0,
    "bottom left": 2,
    "bottom right": 2,
}

BACKGROUNDS = {
    "white": (255, 255, 255),
    "black": (28, 28, 30),
    "grey": (150, 150, 152),
    "red": (216, 62, 62),
    "orange": (244, 150, 54),
    "yellow": (250, 222, 84),
    "green": (78, 176, 92),
    "light green": (184, 230, 164),
    "blue": (58, 104, 214),
    "light blue": (172, 214, 246),
    "purple": (146, 88, 198),
    "pink": (250, 172, 204),
    "brown": (138, 94, 60),
}
NUMBERS = ("no", "one", "two", "three", "four")

SMALL = 112  # px, the side of a sprite
LARGE = 208  # px, one alone may be this large
SIZES = ((256, 256), (256, 384), (384, 256))  # height, width

# Drawn where a prompt names something that is not in the list, and said of a picture that holds no listed object.
UNKNOWN = "question mark"
UNKNOWN_EMOJI = "\u2753"
UNKNOWN_ANSWER = "an unknown object"


def read_objects(path=os.path.join(HERE, "objects.tsv")):
    """[(emoji, name, plural or None)], the order of words.json; the last one is UNKNOWN."""
    rows = []
    with open(path, encoding="utf-8") as file:
        header = file.readline().rstrip("\n")
        if header != "emoji\tname\tplural":
            raise ValueError(f"{path}: first line is {header!r}, expected 'emoji\\tname\\tplural'")
        for number, line in enumerate(file, 2):
            fields = line.rstrip("\n").split("\t")
            if len(fields) != 3 or len(fields[0]) != 1:
                raise ValueError(f"{path}:{number}: expected one character, a name and a plural")
            rows.append((fields[0], fields[1], fields[2] or None))
    rows.append((UNKNOWN_EMOJI, UNKNOWN, UNKNOWN + "s"))
    return rows


OBJECTS = read_objects()
NAMES = [name for _, name, _ in OBJECTS]
PLURALS = [plural for _, _, plural in OBJECTS]
INDEX = {name: index for index, name in enumerate(NAMES)}
UNKNOWN_INDEX = INDEX[UNKNOWN]


def place_pixels(place, height, width, side=SMALL):
    """Centre (x, y) of a sprite at a place; a large one fits only at the centre."""
    if side > SMALL and place != "centre":
        raise ValueError(f"an object of {side} px at place {place!r}, limit: centre")
    return (64, width // 2, width - 64)[_COLUMN[place]], (64, height // 2, height - 64)[_ROW[place]]


def places_clash(first, second, height, width):
    """Whether two small sprites would overlap."""
    (x0, y0), (x1, y1) = place_pixels(first, height, width), place_pixels(second, height, width)
    return abs(x0 - x1) < SMALL and abs(y0 - y1) < SMALL


def reading_order(place):
    return _ROW[place], _COLUMN[place]


def article(name):
    """'a' or 'an' by sound."""
    silent_h = re.match(r"(hourglass|hour)", name)
    like_y = re.match(r"(uni|ufo|u[a-z]?ful|eu)", name)
    return "an" if (name[0] in "aeiou" and not like_y) or silent_h else "a"


def one_of(index):
    """'a panda', 'an axe'; names without a plural ('sushi', 'glasses') stand alone."""
    name = NAMES[index]
    return name if PLURALS[index] is None else f"{article(name)} {name}"


def at_place(place):
    """How answers say a place: 'on the left', 'at the top', 'in the top left'."""
    if place in ("left", "right"):
        return f"on the {place}"
    return f"at the {place}" if place in ("top", "bottom") else f"in the {place}"
