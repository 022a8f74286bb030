"""Pictures, edits and answers by the trunk, without a KV cache: whole sequences each time, exact positions.

Guidance, schedule and both solvers are the product's; arithmetic is that of the parts' own dtype.
"""

import math

import torch

import autoencoder
import bpe
import tables
import vision
from sequences import Template

EULER, DPMPP_2M = "euler", "dpmpp_2m"


def schedule(steps, shift):
    """steps + 1 times from 1 to 0, computed in f32."""
    s = 1 - torch.arange(steps + 1, dtype=torch.float32) / steps
    return (shift * s / (1 + (shift - 1) * s)).tolist()


def guided(conditional, unconditional, scale, gains=None):
    """Classifier-free guidance per picture [batch, n, 48], its length no greater than the conditional velocity's."""

    def norm(x):
        return (x.float() if x.dtype == torch.bfloat16 else x).flatten(1).norm(dim=1)

    wide = unconditional + scale * (conditional - unconditional)
    gain = (norm(conditional) / (norm(wide) + 1e-8)).clamp(0, 1)
    if gains is not None:
        gains.append(gain.tolist())
    return wide * gain[:, None, None].to(wide.dtype)


def multistep_weights(previous, t, following):
    """(latents, clean, previous clean) of a DPM-Solver++(2M) step from t to `following`, after one from `previous`."""

    def log_snr(time):
        return math.log((1 - time) / time)

    rest = 1 - following / t
    correction = 0.0
    if previous is not None and previous < 1 and following > 0:
        correction = (log_snr(following) - log_snr(t)) / (2 * (log_snr(t) - log_snr(previous)))
    return following / t, rest * (1 + correction), -rest * correction


def solve(velocity_of, noise, times, solver=EULER, trace=None):
    """Latents at times[-1] from noise at times[0]; velocity_of(x, t) is guided already."""
    x, clean, previous = noise, None, None
    for t, following in zip(times, times[1:]):
        v = velocity_of(x, t)
        if solver == EULER:
            x = x - v * (t - following)
        else:
            estimate = x - t * v
            keep, new, old = multistep_weights(previous, t, following)
            x = keep * x + new * estimate + (old * clean if clean is not None else 0)
            clean, previous = estimate, t
        if trace is not None:
            trace.append(x)
    return x


class Engine:
    def __init__(self, parts, device="cpu"):
        self.parts, self.device = parts.to(device), device
        self.dtype = parts.trunk.vae2llm.weight.dtype
        self.wide = torch.float64 if self.dtype == torch.float64 else torch.float32
        self.post = parts.tokenizer.suffix()

    def _markers(self):
        return self.parts.tokenizer.vision_start, self.parts.tokenizer.vision_end

    def _latent_table(self, height, width):
        return tables.latent_positions(height, width, self.parts.config["hidden_size"]).to(self.device, self.dtype)

    def _rows(self, template, texts, features=None):
        und = self.parts.trunk.embed(template.place_tokens(texts))
        if features is not None:
            rows = template.vision_rows
            und = torch.cat((und[:, : rows.start], features.to(und.dtype), und[:, rows.stop :]), dim=1)
        return und

    def _prepare(self, task, prompts, latent=None, grid=None):
        """Template, padded texts, caption lengths, for prompts of any lengths."""
        captions = [self.parts.tokenizer.encode(prompt) for prompt in prompts]
        slot = max(len(caption) for caption in captions) + len(self.post)
        template = Template(
            self.parts.tokenizer.prefix(bpe.SYSTEM[task]),
            self._markers(),
            [slot],
            latent,
            grid,
            condition=task == "edit",
        ).to(self.device)
        texts = torch.zeros(len(prompts), slot, dtype=torch.long)
        for row, caption in zip(texts, captions):
            row[: len(caption) + len(self.post)] = torch.tensor(caption + self.post)
        return template, texts.to(self.device), torch.tensor([len(c) for c in captions], device=self.device)

    @torch.no_grad()
    def see(self, pixels):
        """Vision features of [batch, 3, H, W] in 0..1, sides multiples of 28."""
        grid = pixels.shape[2] // vision.PATCH, pixels.shape[3] // vision.PATCH
        patches = vision.patches_of(pixels.to(self.device, self.wide)).to(self.dtype)
        return self.parts.vision(patches, grid), (grid[0] // 2, grid[1] // 2)

    @torch.no_grad()
    def velocities(self, task, prompts, latent, features=None, grid=None, source=None):
        """f(x, t, conditional) -> velocity [batch, n, 48] of a batch of requests with one latent size."""
        template, texts, lengths = self._prepare(task, prompts, latent, grid)
        und = self._rows(template, [texts], features)
        valid = lengths + len(self.post)
        biases = {
            True: template.bias(template.valid([valid]), self.dtype),
            False: template.bias(template.valid([valid], lengths), self.dtype),
        }
        rotary = {
            True: tables.rotary(template.positions(lengths, len(self.post)), self.wide),
            False: tables.rotary(template.positions(torch.zeros_like(lengths), len(self.post)), self.wide),
        }
        table = self._latent_table(*latent)[None]
        trunk = self.parts.trunk
        clean = (
            None
            if source is None
            else trunk.embed_latents(source, torch.zeros(len(prompts), device=self.device), table)
        )

        @torch.no_grad()
        def velocity(x, t, conditional=True):
            gen = trunk.embed_latents(x, torch.full((len(prompts),), t, device=self.device), table)
            gen = gen if clean is None else torch.cat((clean, gen), dim=1)
            _, out = trunk(und, gen, *rotary[conditional], biases[conditional])
            return trunk.velocity(out[:, template.target.start :]).to(x.dtype)

        return velocity

    @torch.no_grad()
    def generate(
        self,
        prompts,
        noise,
        latent,
        steps=30,
        shift=3.5,
        guidance=4.0,
        interval=(0.4, 1.0),
        solver=EULER,
        task="generate",
        trace=None,
        gains=None,
        **source
    ):
        """Final latents [batch, n, 48] for start noise of that shape."""
        velocity = self.velocities(task, prompts, latent, **source)

        def guided_velocity(x, t):
            v = velocity(x, t)
            if guidance <= 1 or not interval[0] < t <= interval[1]:
                if gains is not None:
                    gains.append([1.0] * len(prompts))
                return v
            return guided(v, velocity(x, t, conditional=False), guidance, gains)

        times = schedule(steps, shift)
        return solve(guided_velocity, noise.to(self.device, self.dtype), times, solver, trace)

    @torch.no_grad()
    def decode(self, latents, latent):
        """Pixels [batch, 3, H, W] in -1..1 of latents [batch, n, 48]."""
        return self.parts.autoencoder.decode(autoencoder.grid_of(latents, *latent)).clamp(-1, 1)

    @torch.no_grad()
    def encode(self, pixels):
        """Latents [batch, n, 48] of pixels [batch, 3, H, W] in -1..1."""
        return autoencoder.rows_of(self.parts.autoencoder.encode(pixels.to(self.device, self.dtype)))

    @torch.no_grad()
    def answer_logits(self, questions, features, grid, answers):
        """Logits [batch][rows, vocabulary] that predict each token of `answers` (ids), given what precedes it."""
        suffix = [
            question + self.post + answer
            for question, answer in zip((self.parts.tokenizer.encode(q) for q in questions), answers)
        ]
        slot = max(len(text) for text in suffix)
        template = Template(self.parts.tokenizer.prefix(bpe.SYSTEM["answer"]), self._markers(), [slot], None, grid)
        template = template.to(self.device)
        texts = torch.zeros(len(suffix), slot, dtype=torch.long)
        for row, text in zip(texts, suffix):
            row[: len(text)] = torch.tensor(text)
        lengths = torch.tensor([len(text) for text in suffix], device=self.device)
        und = self._rows(template, [texts.to(self.device)], features)
        bias = template.bias(template.valid([lengths]), self.dtype)
        rotary = tables.rotary(template.positions(torch.zeros_like(lengths), len(self.post)), self.wide)
        out, _ = self.parts.trunk(und, None, *rotary, bias)
        rows = out[:, template.texts[0].start :]
        logits = self.parts.trunk.logits(rows)
        return [
            logits[i, len(text) - len(answer) - 1 : len(text)]
            for i, (text, answer) in enumerate(zip(suffix, answers))
        ]

    def answer(self, questions, features, grid, limit=64):
        """Greedy answers to one question about each picture."""
        tokenizer = self.parts.tokenizer
        answers, open_ones = [[] for _ in questions], set(range(len(questions)))
        for _ in range(limit):
            logits = self.answer_logits(questions, features, grid, answers)
            for i in list(open_ones):
                token = int(logits[i][-1, : tokenizer.special[bpe.ADDED[-1]] + 1].argmax())
                if token == tokenizer.end:
                    open_ones.discard(i)
                else:
                    answers[i].append(token)
            if not open_ones:
                break
        return [tokenizer.decode(answer).strip() for answer in answers]
