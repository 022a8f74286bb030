"""Prompts that describe scenes: places, counts, relations, lists."""

import words
from scenes import Item, make_scene

# How often a prompt says where things are, how many, how they relate, or only what they are.
KINDS = (("places", 0.62), ("count", 0.10), ("relation", 0.12), ("list", 0.16))
UNKNOWN_SHARE = 0.03  # prompts in which one name is none of ours

_PREFIXES = ("a picture of ", "an image of ", "a drawing of ", "draw ", "a photo of ", "show me ")
_RELATIONS = (
    ("next to", "left", "right"),
    ("beside", "left", "right"),
    ("to the left of", "left", "right"),
    ("to the right of", "right", "left"),
    ("above", "top", "bottom"),
    ("on top of", "top", "bottom"),
    ("over", "top", "bottom"),
    ("below", "bottom", "top"),
    ("under", "bottom", "top"),
)
_SIZES = ("big", "large", "huge")


def join_list(parts, rng=None):
    """'a, b and c'; now and then with commas only."""
    if len(parts) == 1:
        return parts[0]
    if rng is not None and len(parts) > 1 and rng.random() < 0.2:
        return ", ".join(parts)
    return ", ".join(parts[:-1]) + " and " + parts[-1]


def spoken_colour(name, rng):
    return name.replace("grey", "gray") if rng.random() < 0.3 else name


def spoken_place(place, rng):
    """'in the top left corner', 'on the left side', 'in the middle', ..."""
    if place in ("left", "right"):
        return f"on the {place}" + (" side" if rng.random() < 0.3 else "")
    if place in ("top", "bottom"):
        return f"at the {place}"
    if place == "centre":
        return "in the " + rng.choice(("centre", "center", "middle"))
    return f"in the {place}" + (" corner" if rng.random() < 0.3 else "")


def large_one(name, rng, sized=None):
    """'a huge die', 'big sushi'."""
    size = sized or rng.choice(_SIZES)
    return f"{size} {name[0]}" if name[1] is None else f"a {size} {name[0]}"


def background_phrase(background, rng):
    if background == "white" and rng.random() < 0.75:
        return ""
    colour = spoken_colour(background, rng)
    form = rng.choice(
        (
            ", on {a} {c} background",
            " on {a} {c} background",
            ", {c} background",
            " on {c}",
            " with {a} {c} background",
            ", on {a} {c} background",
        )
    )
    return form.format(a=words.article(colour), c=colour)


def finish(text, rng):
    """Prefix, capital letter and full stop, each in a share of the prompts."""
    if rng.random() < 0.25:
        text = rng.choice(_PREFIXES) + text
    if rng.random() < 0.25:
        text = text[0].upper() + text[1:]
    return text + "." if rng.random() < 0.15 else text


def describe_placed(scene, rng, name_of=words.one_of):
    """The prompt of a scene, places named unless it is one object at the centre."""
    items = list(scene.items)
    rng.shuffle(items)
    if len(items) == 1 and items[0].place == "centre" and (items[0].large or rng.random() < 0.5):
        item = items[0]
        name = (words.NAMES[item.index], words.PLURALS[item.index])
        subject = large_one(name, rng) if item.large else name_of(item.index)
    else:
        subject = join_list([f"{name_of(item.index)} {spoken_place(item.place, rng)}" for item in items], rng)
    return subject + background_phrase(scene.background, rng)


def sample_prompt(sampler, unknown_names, height=256, width=256, unknown_share=UNKNOWN_SHARE):
    """(prompt, Scene) with the shares of KINDS."""
    rng = sampler.rng
    kind = rng.choices([name for name, _ in KINDS], [share for _, share in KINDS])[0]
    if unknown_names and rng.random() < unknown_share:
        return _with_unknown(sampler, unknown_names, height, width)
    if kind == "count":
        count = rng.randint(2, 4)
        scene, indices = sampler.default(count, same=True, height=height, width=width)
        text = f"{words.NUMBERS[count]} {words.PLURALS[indices[0]]}"
    elif kind == "relation":
        text, scene = _relation(sampler, height, width)
    elif kind == "list":
        scene, indices = sampler.default(rng.randint(2, 4), height=height, width=width)
        text = join_list([words.one_of(index) for index in indices], rng)
    else:
        scene = sampler.placed(height, width, distinct=False)
        return finish(describe_placed(scene, rng), rng), scene
    return finish(text + background_phrase(scene.background, rng), rng), scene


def _relation(sampler, height, width):
    rng = sampler.rng
    while True:
        first, second = sampler.objects(2)
        word, place, other = rng.choice(_RELATIONS)
        scene = make_scene(sampler.background(), [Item(first, place), Item(second, other)], height, width)
        if sampler.accept(scene):
            return f"{words.one_of(first)} {word} {words.one_of(second)}", scene


def _with_unknown(sampler, unknown_names, height, width):
    """A prompt that names something else: a question mark is drawn in its place."""
    rng = sampler.rng
    while True:
        scene = sampler.placed(height, width)
        items = [
            Item(words.UNKNOWN_INDEX, item.place, item.large) if item is scene.items[0] else item
            for item in scene.items
        ]
        changed = scene.with_items(items)
        if sampler.held_out or sampler.accept(changed):
            break
    name = rng.choice(unknown_names)
    if changed.items[0].large or len(items) == 1 and items[0].large:
        text = large_one((name, name), rng) + background_phrase(scene.background, rng)
    else:

        def name_of(index):
            return f"{words.article(name)} {name}" if index == words.UNKNOWN_INDEX else words.one_of(index)

        text = describe_placed(changed, rng, name_of)
    return finish(text, rng), changed
