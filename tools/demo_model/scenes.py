"""Scenes: one to four sprites on a flat background, and which of their pairs never occur in training."""

import dataclasses
import functools
import itertools
import os
import zlib

import words


@dataclasses.dataclass(frozen=True)
class Item:
    index: int  # into words.OBJECTS, or beyond: a sprite that has no name (see render.Atlas)
    place: str
    large: bool = False

    @property
    def known(self):
        return self.index < len(words.OBJECTS)


@dataclasses.dataclass(frozen=True)
class Scene:
    background: str
    items: tuple  # of Item, in reading order
    height: int = 256
    width: int = 256

    def at(self, place):
        return next((item for item in self.items if item.place == place), None)

    def with_items(self, items):
        ordered = sorted(items, key=lambda item: words.reading_order(item.place))
        return dataclasses.replace(self, items=tuple(ordered))


def make_scene(background, items, height=256, width=256):
    return Scene(background, (), height, width).with_items(items)


def _held_out(text):
    return zlib.crc32(text.encode()) % 40 == 0


@functools.lru_cache(maxsize=None)
def _listed_pairs(path=os.path.join(words.HERE, "held_out.tsv")):
    """Pairs of the requests that came with models/demo from the start, which no training had."""
    with open(path, encoding="utf-8") as file:
        next(file)
        return {tuple(line.rstrip("\n").split("\t")) for line in file}


@functools.lru_cache(maxsize=None)
def pair_is_held_out(index, place_or_background):
    """One in 40 (object, place) and (object, background) pairs, and the listed ones, occur in tests only. None of the
    centre: an object is large there alone, and one that training never shows large cannot be drawn so."""
    if index >= len(words.NAMES) or place_or_background == "centre":
        return False
    name = words.NAMES[index]
    return _held_out(f"{name}|{place_or_background}") or (name, place_or_background) in _listed_pairs()


def unknown_name_is_held_out(name):
    """One in 10 names of unknown things occurs in tests only."""
    return zlib.crc32(name.encode()) % 10 == 0


def is_held_out(scene):
    return any(
        pair_is_held_out(item.index, item.place) or pair_is_held_out(item.index, scene.background)
        for item in scene.items
    )


@functools.lru_cache(maxsize=None)
def place_sets(count, height, width):
    """All sets of `count` places whose sprites do not overlap."""
    return [
        places
        for places in itertools.combinations(words.PLACES, count)
        if not any(words.places_clash(a, b, height, width) for a, b in itertools.combinations(places, 2))
    ]


def default_places(count):
    """Where objects go when nobody says: centre; left and right; two on top and one below; the corners."""
    return (
        ("centre",),
        ("left", "right"),
        ("top left", "top right", "bottom"),
        ("top left", "top right", "bottom left", "bottom right"),
    )[count - 1]


class SceneSampler:
    """Draws scenes with random.Random. held_out: False for training, True for tests (every scene holds such a pair).

    nameless: how many sprites without a name follow the known ones in the atlas.
    """

    # Lone objects, half of them large, get a third: 208-px sprites are the most pixels to learn.
    COUNT_WEIGHTS = (0.34, 0.26, 0.20, 0.20)
    LARGE_SHARE = 0.5
    NAMELESS_SHARE = 0.03

    def __init__(self, rng, held_out=False, nameless=0):
        self.rng = rng
        self.held_out = held_out
        self.nameless = nameless

    def objects(self, count):
        return self.rng.sample(range(len(words.OBJECTS) - 1), count)

    def background(self):
        return self.rng.choice(list(words.BACKGROUNDS)) if self.rng.random() < 0.8 else "white"

    def count(self):
        return self.rng.choices((1, 2, 3, 4), self.COUNT_WEIGHTS)[0]

    def accept(self, scene):
        return is_held_out(scene) == self.held_out

    def placed(self, height=256, width=256, count=None, nameless=False, distinct=True):
        """A scene with objects at random places."""
        while True:
            number = count or self.count()
            indices = self.objects(number)
            if not distinct and number > 1 and self.rng.random() < 0.1:
                indices[1] = indices[0]
            if nameless and self.nameless:
                indices[0] = len(words.OBJECTS) + self.rng.randrange(self.nameless)
            places = list(self.rng.choice(place_sets(number, height, width)))
            self.rng.shuffle(places)
            large = number == 1 and places[0] == "centre" and self.rng.random() < self.LARGE_SHARE
            if (
                number == 1 and not large and self.rng.random() < 0.4
            ):  # else 4 in 9 lone objects would hardly be large
                places, large = ["centre"], self.rng.random() < 0.75
            items = [Item(index, place, large) for index, place in zip(indices, places)]
            scene = make_scene(self.background(), items, height, width)
            if self.accept(scene):
                return scene

    def default(self, count, same=False, height=256, width=256):
        """Objects at the default places, in the order in which they are named."""
        while True:
            indices = self.objects(1) * count if same else self.objects(count)
            if same and words.PLURALS[indices[0]] is None:
                continue
            items = [Item(index, place) for index, place in zip(indices, default_places(count))]
            scene = make_scene(self.background(), items, height, width)
            if self.accept(scene):
                return scene, indices
