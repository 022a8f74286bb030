"""How requests become rows: tokens, positions and visibility of the three tasks, padded for batches or exact.

A Template has fixed slots. Und rows: PRE, the vision block, the markers of the condition, one or more text slots, the
markers of the target. Gen rows: the condition's latents, then the target's. Only text has a length of its own, so all
positions are base + coefficient * (caption and POST), and all visibility is a fixed matrix plus the validity of text rows.
"""

import dataclasses

import torch


@dataclasses.dataclass
class Block:
    name: str
    und: range  # rows among the und rows
    gen: range  # rows among the gen rows
    causal: bool
    noise: bool = False  # seen by itself only
    group: int = 0  # several texts of one picture do not see each other; 0 is seen by all


class Template:
    """Rows of one task.

    pre: token ids before the user's text. markers: (vision start, vision end) ids. latent: (h, w) latent rows of the
    target or None. vision: (h, w) merged cells or None. condition: whether the source's latents are there (edits).
    texts: lengths of the text slots.
    """

    def __init__(self, pre, markers, texts, latent=None, vision=None, condition=False):
        self.pre, self.markers, self.latent, self.vision, self.condition = (
            list(pre),
            markers,
            latent,
            vision,
            condition,
        )
        self.texts = []  # ranges of the text slots
        self.blocks = []
        self.vision_rows = range(0)
        und = 0
        tokens, base, depends = list(pre), [(i, i, i) for i in range(len(pre))], [0] * len(pre)
        self.blocks.append(Block("pre", range(0, len(pre)), range(0), True))
        und, clock = len(pre), len(pre)
        gen_base, gen_depends, gen = [], [], 0

        def grid_ids(start, extent):
            return [(start, start + row, start + column) for row in range(extent[0]) for column in range(extent[1])]

        if vision:
            cells = vision[0] * vision[1]
            # Only generation moves the vision block: its first row goes to t = 1000.
            shift = 1000 - clock if condition else 0
            ids = [(clock,) * 3] + grid_ids(clock + 1, vision) + [(clock + 1 + max(vision),) * 3]
            base += [(t + shift, h, w) for t, h, w in ids]
            tokens += [markers[0]] + [0] * cells + [markers[1]]
            depends += [0] * len(ids)
            self.blocks.append(Block("vision", range(und, und + cells + 2), range(0), False))
            self.vision_rows = range(und + 1, und + 1 + cells)
            und += cells + 2
            clock += max(vision) + 2
        if condition:
            count = latent[0] * latent[1]
            self.condition_ids = [(clock,) * 3, (clock + 1 + max(latent),) * 3], grid_ids(clock + 1, latent)
            base += self.condition_ids[0]
            tokens += list(markers)
            depends += [0, 0]
            gen_base += self.condition_ids[1]
            gen_depends += [0] * count
            self.blocks.append(Block("condition", range(und, und + 2), range(0, count), False))
            und += 2
            gen = count
            clock += max(latent) + 2
        for number, length in enumerate(texts):
            base += [(clock + i,) * 3 for i in range(length)]
            tokens += [0] * length
            depends += [0] * length
            self.texts.append(range(und, und + length))
            self.blocks.append(
                Block("text", range(und, und + length), range(0), True, group=number + 1 if len(texts) > 1 else 0)
            )
            und += length
        if latent:
            count = latent[0] * latent[1]
            if condition:  # the target copies the condition's ids
                ends, ids, depend = *self.condition_ids, 0
            else:  # after caption and POST; the caption's length is added per sample
                ends, ids, depend = [(clock,) * 3, (clock + 1 + max(latent),) * 3], grid_ids(clock + 1, latent), 1
            base += ends
            tokens += list(markers)
            depends += [depend, depend]
            gen_base += ids
            gen_depends += [depend] * count
            self.blocks.append(Block("target", range(und, und + 2), range(gen, gen + count), False, noise=True))
            und += 2
            gen += count
        self.und, self.gen = und, gen
        self.tokens = torch.tensor(tokens)
        self.base = torch.tensor(base + gen_base)
        self.depends = torch.tensor(depends + gen_depends)[:, None]
        self.target = range(gen - latent[0] * latent[1], gen) if latent else range(0)
        self.mask = self._mask()

    def _mask(self):
        rows = self.und + self.gen
        block, order = torch.zeros(rows, dtype=torch.long), torch.zeros(rows, dtype=torch.long)
        position = 0
        for number, one in enumerate(self.blocks):
            members = list(one.und) + [self.und + row for row in one.gen]
            for row in members:
                block[row], order[row] = number, position
                position += one.causal
            position += not one.causal
        causal = torch.tensor([one.causal for one in self.blocks])[block]
        noise = torch.tensor([one.noise for one in self.blocks])[block]
        group = torch.tensor([one.group for one in self.blocks])[block]
        same = block[:, None] == block[None]
        earlier = order[None] < order[:, None]
        allowed = (
            (earlier & ~same)
            | (same & ~causal[:, None])
            | (same & causal[:, None] & (earlier | torch.eye(rows, dtype=torch.bool)))
        )
        allowed &= ~noise[None] | same
        return allowed & ((group[None] == 0) | (group[None] == group[:, None]))

    def to(self, device):
        for name in ("tokens", "base", "depends", "mask"):
            setattr(self, name, getattr(self, name).to(device))
        return self

    def place_tokens(self, texts):
        """[batch, und] ids of [batch, slot] ids per text slot."""
        tokens = self.tokens.repeat(texts[0].shape[0], 1)
        for rows, text in zip(self.texts, texts):
            tokens[:, rows.start : rows.stop] = text
        return tokens

    def positions(self, caption_lengths, post):
        """[batch, rows, 3]. caption_lengths [batch]: 0 where the caption is dropped. Targets without a condition follow
        caption and POST, of `post` tokens."""
        return self.base[None] + self.depends[None] * (caption_lengths[:, None, None] + post)

    def bias(self, valid, dtype):
        """[batch, 1, rows, rows] additive mask; valid [batch, und] says which text rows exist. Every row sees itself."""
        keys = torch.cat((valid, valid.new_ones(valid.shape[0], self.gen)), dim=1)
        allowed = (self.mask[None] & keys[:, None]) | torch.eye(
            self.und + self.gen, dtype=torch.bool, device=valid.device
        )
        return torch.zeros(allowed.shape, dtype=dtype, device=valid.device).masked_fill(~allowed, float("-inf"))[
            :, None
        ]

    def valid(self, lengths, dropped_lengths=None):
        """[batch, und] from [batch] lengths per text slot; the first dropped_lengths rows of the first slot are hidden."""
        batch = lengths[0].shape[0]
        valid = torch.ones(batch, self.und, dtype=torch.bool, device=lengths[0].device)
        for number, (rows, length) in enumerate(zip(self.texts, lengths)):
            index = torch.arange(len(rows), device=valid.device)[None]
            keep = index < length[:, None]
            if number == 0 and dropped_lengths is not None:
                keep &= index >= dropped_lengths[:, None]
            valid[:, rows.start : rows.stop] = keep
        return valid


def round_rows(text_rows, other_rows):
    """The text slot's length that makes all rows a multiple of 8, as fast attention kernels want."""
    return text_rows + -(text_rows + other_rows) % 8
