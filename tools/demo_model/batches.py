"""What CPU workers make for a step of the trunk: index arrays and padded token ids, never pixels."""

import dataclasses
import random

import torch

import captions
import tasks
from render import SLOTS, scene_arrays
from scenes import SceneSampler, unknown_name_is_held_out
from sequences import round_rows

SQUARE = (256, 256)


@dataclasses.dataclass(frozen=True)
class BatchSizes:
    """Samples of a step. wide: pictures of 256 x 384 and as many of 384 x 256. pictures: each with one question of any
    kind and two short ones."""

    square: int = 144
    wide: int = 24
    edits: int = 64
    pictures: int = 64


@dataclasses.dataclass(frozen=True)
class TextSlots:
    """Rows of the text slots, rounded so that all rows of a sequence are a multiple of 8."""

    generate: int
    edit: int
    long_answer: int
    short_answer: int


DROPPED = 0.10  # share of captions left out, for guidance


# Rows of text in almost all cases, caption or question and POST and answer; longer ones are drawn again.
LONGEST = {"generate": 58, "edit": 32, "long": 76, "short": 32}


def text_slots(prefix_lengths):
    """TextSlots for the lengths of PRE of the three tasks, at 256 x 256."""
    vision, latents = 64 + 2, 256
    short = -(-LONGEST["short"] // 4) * 4
    return TextSlots(
        round_rows(LONGEST["generate"], prefix_lengths["generate"] + 2 + latents),
        round_rows(LONGEST["edit"], prefix_lengths["edit"] + vision + 4 + 2 * latents),
        round_rows(LONGEST["long"], prefix_lengths["answer"] + vision + 2 * short),
        short,
    )


class BatchMaker:
    """Batches of one worker; equal seeds give equal batches."""

    def __init__(self, tokenizer, atlas_nameless, unknown_names, sizes, slots, seed, held_out=False):
        self.rng = random.Random(seed)
        self.sampler = SceneSampler(self.rng, held_out, atlas_nameless)
        # Prompts never name a sprite without a name.
        self.drawn = SceneSampler(self.rng, held_out, 0)
        self.tokenizer = tokenizer
        self.unknown_names = [name for name in unknown_names if unknown_name_is_held_out(name) == held_out]
        self.sizes, self.slots = sizes, slots
        self.post = tokenizer.suffix()

    def _pad(self, texts, slot):
        """([n, slot] ids, [n] lengths); texts that are too long raise ValueError."""
        out = torch.zeros(len(texts), slot, dtype=torch.int16)
        for row, text in zip(out, texts):
            if len(text) > slot:
                raise ValueError(f"text of {len(text)} tokens, limit {slot}: {self.tokenizer.decode(text)}")
            row[: len(text)] = torch.tensor(text, dtype=torch.int16)
        return out, torch.tensor([len(text) for text in texts], dtype=torch.int16)

    def _prompted(self, name, prompts, slot):
        """Tokens, caption lengths and dropped flags of prompts."""
        encoded = [self.tokenizer.encode(prompt) for prompt in prompts]
        text, _ = self._pad([tokens + self.post for tokens in encoded], slot)
        return {
            name + ".text": text,
            name + ".caption": torch.tensor([len(tokens) for tokens in encoded], dtype=torch.int16),
            name + ".dropped": torch.tensor([self.rng.random() < DROPPED for _ in prompts]),
        }

    def _fit(self, make, slot):
        """Draws until the text fits its slot; the longest prompts do not, now and then."""
        while True:
            made = make()
            if len(self.tokenizer.encode(made[0])) + len(self.post) <= slot:
                return made

    def _generated(self, name, count, height, width):
        drawn = [
            self._fit(
                lambda: captions.sample_prompt(self.drawn, self.unknown_names, height, width), self.slots.generate
            )
            for _ in range(count)
        ]
        background, items = scene_arrays([scene for _, scene in drawn])
        return {
            name + ".background": background,
            name + ".items": items,
            **self._prompted(name, [prompt for prompt, _ in drawn], self.slots.generate),
        }

    def _edited(self):
        made = []
        for _ in range(self.sizes.edits):
            made.append(self._fit(lambda: tasks.sample_edit(self.drawn)[1:], self.slots.edit))
        batch = self._prompted("edit", [text for text, _, _ in made], self.slots.edit)
        batch["edit.background"], batch["edit.items"] = scene_arrays([source for _, source, _ in made])
        batch["edit.target_background"], batch["edit.target_items"] = scene_arrays([target for _, _, target in made])
        return batch

    def _questions(self):
        scenes, slots = [], [[], [], []]
        starts = [[], [], []]
        for _ in range(self.sizes.pictures):
            scene = self.sampler.placed(nameless=self.rng.random() < 3 * SceneSampler.NAMELESS_SHARE, distinct=False)
            scenes.append(scene)
            for number in range(3):
                limit = self.slots.short_answer if number else self.slots.long_answer
                kinds = tasks.SHORT_QUESTION_KINDS if number else tasks.FIRST_QUESTION_KINDS
                while True:
                    _, question, answer = tasks.sample_question(self.sampler, scene, kinds)
                    start = self.tokenizer.encode(question) + self.post
                    text = start + self.tokenizer.encode(answer) + [self.tokenizer.end]
                    if len(text) - 1 <= limit:
                        break
                slots[number].append(text)
                starts[number].append(len(start))
        batch = {}
        batch["question.background"], batch["question.items"] = scene_arrays(scenes)
        for number in range(3):
            limit = self.slots.short_answer if number else self.slots.long_answer
            inputs, lengths = self._pad([text[:-1] for text in slots[number]], limit)
            labels = torch.full(inputs.shape, -100, dtype=torch.int16)
            for row, text, start in zip(labels, slots[number], starts[number]):
                row[start - 1 : len(text) - 1] = torch.tensor(text[start:], dtype=torch.int16)
            batch[f"question.text{number}"], batch[f"question.length{number}"] = inputs, lengths
            batch[f"question.labels{number}"] = labels
        return batch

    def next(self):
        batch = self._generated("square", self.sizes.square, *SQUARE)
        if self.sizes.wide:
            batch.update(self._generated("wide", self.sizes.wide, 256, 384))
            batch.update(self._generated("tall", self.sizes.wide, 384, 256))
        batch.update(self._edited())
        batch.update(self._questions())
        return batch


class BatchStream(torch.utils.data.IterableDataset):
    """Endless batches, each worker with a seed of its own."""

    def __init__(self, tokenizer, nameless, unknown_names, sizes, slots, seed):
        self.arguments = (tokenizer, nameless, unknown_names, sizes, slots)
        self.seed = seed

    def __iter__(self):
        worker = torch.utils.data.get_worker_info()
        number = worker.id if worker else 0
        maker = BatchMaker(*self.arguments, seed=self.seed * 1000 + number)
        torch.set_num_threads(1)
        while True:
            yield maker.next()


def autoencoder_scenes(rng, nameless, count, height, width):
    """Scene arrays for the autoencoder: any glyph, named or not, at the usual places."""
    sampler = SceneSampler(rng, held_out=False, nameless=nameless)
    sampler.accept = lambda scene: True
    background, items = scene_arrays([sampler.placed(height, width) for _ in range(count)])
    total = len(captions.words.OBJECTS) + nameless
    sprites = torch.tensor([[rng.randrange(total) for _ in range(SLOTS)] for _ in range(count)], dtype=torch.int16)
    items[..., 0] = torch.where(items[..., 0] >= 0, sprites, items[..., 0])
    return background, items


class AutoencoderStream(torch.utils.data.IterableDataset):
    def __init__(self, nameless, groups, seed):
        """groups: [(name, count, height, width)]."""
        self.nameless, self.groups, self.seed = nameless, groups, seed

    def __iter__(self):
        worker = torch.utils.data.get_worker_info()
        rng = random.Random(self.seed * 1000 + (worker.id if worker else 0))
        torch.set_num_threads(1)
        while True:
            batch = {}
            for name, count, height, width in self.groups:
                batch[name + ".background"], batch[name + ".items"] = autoencoder_scenes(
                    rng, self.nameless, count, height, width
                )
            yield batch
