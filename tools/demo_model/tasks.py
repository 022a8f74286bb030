"""Edits and questions about scenes, with what is right."""

import dataclasses

import words
from captions import join_list, spoken_colour, spoken_place
from scenes import Item, place_sets

EDIT_KINDS = (
    ("replace", 0.27),
    ("background", 0.17),
    ("remove", 0.17),
    ("move", 0.15),
    ("add", 0.13),
    ("swap", 0.11),
)
QUESTION_KINDS = (
    ("describe", 0.22),
    ("what", 0.14),
    ("colour", 0.05),
    ("count", 0.06),
    ("exist", 0.24),
    ("where", 0.29),
)
# Training asks three questions about a picture: descriptions come first only, and make up half of these.
FIRST_QUESTION_KINDS = (("describe", 0.50),) + tuple((name, share * 0.64) for name, share in QUESTION_KINDS[1:])
SHORT_QUESTION_KINDS = QUESTION_KINDS[1:]

_REPLACE = (
    "replace the {a} with {b}",
    "replace the {a} by {b}",
    "change the {a} to {b}",
    "turn the {a} into {b}",
    "change the {a} into {b}",
)
_BACKGROUND = (
    "make the background {c}",
    "set the background to {c}",
    "change the background to {c}",
    "turn the background {c}",
)
_REMOVE = ("remove the {a}", "delete the {a}", "erase the {a}", "take away the {a}")
_MOVE = ("move the {a} to the {p}", "put the {a} {q}")
_ADD = ("add {b} {p}", "put {b} {p}", "draw {b} {p}")
_SWAP = ("swap the {a} and the {b}", "swap the {a} with the {b}")


def _pick(rng, kinds):
    return rng.choices([name for name, _ in kinds], [share for _, share in kinds])[0]


def _finish(text, rng):
    if rng.random() < 0.25:
        text = text[0].upper() + text[1:]
    return text + "." if rng.random() < 0.15 else text


def _unique(scene):
    """Items whose object occurs once and has a name: the ones that 'the panda' means."""
    counts = {}
    for item in scene.items:
        counts[item.index] = counts.get(item.index, 0) + 1
    return [item for item in scene.items if counts[item.index] == 1 and item.known]


def _free_places(scene, without=None):
    """Places where one more sprite fits when the item `without` is away."""
    taken = {item.place for item in scene.items if item is not without}
    sets = place_sets(len(taken) + 1, scene.height, scene.width)
    return [place for place in words.PLACES if place not in taken and any(taken | {place} == set(s) for s in sets)]


def sample_edit(sampler, kind=None, height=256, width=256):
    """(kind, instruction, source Scene, target Scene); neither scene is rejected by the sampler's accept."""
    rng = sampler.rng
    while True:
        wanted = kind or _pick(rng, EDIT_KINDS)
        least = {"remove": 2, "swap": 2}.get(wanted, 1)
        count = rng.choice([n for n in (1, 2, 3, 4) if n >= least and not (wanted == "add" and n == 4)])
        scene = sampler_free(sampler).placed(height, width, count)
        made = _edit(wanted, scene, sampler)
        if made is None:
            continue
        text, target = made
        if sampler.held_out:
            if sampler.accept(target):
                return wanted, _finish(text, rng), scene, target
        elif sampler.accept(scene) and sampler.accept(target):
            return wanted, _finish(text, rng), scene, target


class _AcceptAll:
    """The sampler without its rule: the rule is applied to the edit as a whole."""

    def __init__(self, sampler):
        self.sampler = type(sampler)(sampler.rng, False, sampler.nameless)
        self.sampler.accept = lambda scene: True

    def placed(self, *arguments):
        return self.sampler.placed(*arguments)


def sampler_free(sampler):
    return _AcceptAll(sampler)


def _edit(kind, scene, sampler):
    rng = sampler.rng
    items = _unique(scene)
    if not items:
        return None
    item = rng.choice(items)
    name = words.NAMES[item.index]
    rest = [other for other in scene.items if other is not item]
    used = {other.index for other in scene.items}
    fresh = rng.choice([index for index in sampler.objects(8) if index not in used])
    if kind == "replace":
        text = rng.choice(_REPLACE).format(a=name, b=words.one_of(fresh))
        return text, scene.with_items(rest + [Item(fresh, item.place, item.large)])
    if kind == "background":
        colour = rng.choice([c for c in words.BACKGROUNDS if c != scene.background])
        return (
            rng.choice(_BACKGROUND).format(c=spoken_colour(colour, rng)),
            dataclasses.replace(scene, background=colour),
        )
    if kind == "remove":
        return rng.choice(_REMOVE).format(a=name), scene.with_items(rest)
    if kind == "move":
        places = [p for p in _free_places(scene, item) if p != item.place]
        if item.large or not places:
            return None
        place = rng.choice(places)
        said = place if place != "centre" else rng.choice(("centre", "center", "middle"))
        said += " corner" if " " in place and rng.random() < 0.2 else ""
        return rng.choice(_MOVE).format(a=name, p=said, q=spoken_place(place, rng)), scene.with_items(
            rest + [Item(item.index, place)]
        )
    if kind == "add":
        places = _free_places(scene)
        if any(other.large for other in scene.items) or not places:
            return None
        place = rng.choice(places)
        text = rng.choice(_ADD).format(b=words.one_of(fresh), p=spoken_place(place, rng))
        return text, scene.with_items(list(scene.items) + [Item(fresh, place)])
    others = [other for other in items if other is not item]
    if not others:
        return None
    other = rng.choice(others)
    rest = [o for o in rest if o is not other]
    text = rng.choice(_SWAP).format(a=name, b=words.NAMES[other.index])
    return text, scene.with_items(rest + [Item(item.index, other.place), Item(other.index, item.place)])


def describe_answer(scene):
    """The one right description, in reading order: 'a shield in the top right and glasses on the left, on a light
    green background'; one object at the centre goes without its place."""
    colour = f"on {words.article(scene.background)} {scene.background} background"
    if len(scene.items) == 1 and scene.items[0].place == "centre":
        item = scene.items[0]
        said = _said(item)
        if item.large and item.known:
            name = words.NAMES[item.index]
            said = f"big {name}" if words.PLURALS[item.index] is None else f"a big {name}"
        return f"{said} {colour}"
    return join_list([f"{_said(item)} {words.at_place(item.place)}" for item in scene.items]) + ", " + colour


def _said(item):
    return words.one_of(item.index) if item.known else words.UNKNOWN_ANSWER


def sample_question(sampler, scene, kinds=QUESTION_KINDS, kind=None):
    """(kind, question, right answer) about a scene."""
    rng = sampler.rng
    wanted = kind or _pick(rng, kinds)
    if wanted == "where" and not _unique(scene):
        wanted = "what"
    if wanted == "describe":
        text = rng.choice(
            (
                "Describe the image.",
                "Describe this image.",
                "Describe the picture.",
                "What is in the picture?",
                "What is in the image?",
                "What do you see?",
            )
        )
        return wanted, _case(text, rng), describe_answer(scene)
    if wanted == "colour":
        colour = rng.choice(("colour", "color"))
        text = rng.choice((f"What {colour} is the background?", f"What is the {colour} of the background?"))
        return wanted, _case(text, rng), scene.background
    if wanted == "count":
        text = rng.choice(
            (
                "How many objects are there?",
                "How many objects are in the image?",
                "How many things are in the picture?",
                "How many objects do you see?",
            )
        )
        return wanted, _case(text, rng), words.NUMBERS[len(scene.items)]
    if wanted == "exist":
        present = sorted({item.index for item in scene.items if item.known})
        yes = bool(present) and rng.random() < 0.5
        index = rng.choice(present) if yes else rng.choice([i for i in sampler.objects(8) if i not in present])
        tail = rng.choice(("", " in the image", " in the picture"))
        verb = "Are there" if words.PLURALS[index] is None else "Is there"
        return wanted, _case(f"{verb} {words.one_of(index)}{tail}?", rng), "yes" if yes else "no"
    if wanted == "where":
        item = rng.choice(_unique(scene))
        verb = "are" if words.PLURALS[item.index] is None and words.NAMES[item.index].endswith("s") else "is"
        return wanted, _case(f"Where {verb} the {words.NAMES[item.index]}?", rng), words.at_place(item.place)
    places = [item.place for item in scene.items]
    place = rng.choice(places) if rng.random() < 0.93 else rng.choice(words.PLACES)
    item = scene.at(place)
    return wanted, _case(f"What is {spoken_place(place, rng)}?", rng), _said(item) if item else "nothing"


def _case(text, rng):
    return text[0].lower() + text[1:] if rng.random() < 0.15 else text
