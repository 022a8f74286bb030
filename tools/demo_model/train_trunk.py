#!/usr/bin/env python3
"""Trains the trunk and the vision tower on all three tasks at once, on one GPU.

Reads what prepare.py and train_autoencoder.py wrote to --work; leaves --work/trunk.ckpt (to go on from) and
--work/trunk.safetensors (averaged weights). Exit status 3: stopped by --minutes before the plan's end; run it again.
"""

import argparse
import os
import sys
import time

import torch
from torch.nn import functional as F

import autoencoder
import batches
import bpe
import model_files
import nvfp4
import optim
import preview
import render
import run_loop
import safetensors_file
import tables
import trunk
import vision
import words
from sequences import Template

TIME_SHIFT = 2.5  # noise times lean towards noise as inference's do
TEXT_WEIGHT, PLACE_WEIGHT = 0.3, 0.1
SEEN_AGAIN = 4  # one in so many source pictures went through the autoencoder, as pictures that the model drew have
SEEN_NOISE = 0.15
VISION_SIDE = 224


class Networks(torch.nn.Module):
    """Trunk, vision tower, and a head that names what each vision row sees (trained along, not exported)."""

    def __init__(self, config):
        super().__init__()
        self.trunk = trunk.Trunk(config)
        self.vision = vision.VisionTower(config["vision_config"])
        # Named objects, one class for sprites without a name, one for bare background.
        self.seen = torch.nn.Linear(config["hidden_size"], len(words.OBJECTS) + 2)
        self.initialise()

    def initialise(self):
        for name, parameter in self.named_parameters():
            if parameter.dim() < 2:
                continue
            if "embed_tokens" in name:
                torch.nn.init.normal_(parameter, std=0.02)
            elif name.endswith(("llm2vae.weight", "lm_head.weight", "seen.weight")):
                torch.nn.init.zeros_(parameter)
            elif name.endswith(("o_proj.weight", "o_proj_moe_gen.weight", "down_proj.weight", "attn.proj.weight")):
                torch.nn.init.zeros_(parameter)
            else:
                torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.zeros_(parameter)

    def start_from(self, folder):
        """Weights of a finished model's trunk, from its source where that is at hand, and tower."""
        source = os.path.join(folder, "Lance_3B", "model.safetensors")
        quantised = os.path.join(folder, "Lance_3B-NVFP4", "nvfp4_state_dict.safetensors")
        self.trunk.load_state_dict(model_files.trunk_tensors(source if os.path.exists(source) else quantised))
        self.vision.load_state_dict(model_files.load_vision(os.path.join(folder, "Qwen2.5-VL-ViT")).state_dict())

    def round_weights(self, rounding):
        for module in self.trunk.modules():
            if isinstance(module, trunk.Linear):
                module.rounding = rounding


def is_muon_matrix(name, parameter):
    """(whether Muon trains it, matrices in it)."""
    if parameter.dim() != 2 or "seen" in name:
        return False, 1
    if ".layers." in name or ".blocks." in name or "merger.mlp" in name:
        return True, 3 if name.endswith("attn.qkv.weight") else 1
    return False, 1


class Trainer:
    def __init__(self, arguments, device):
        self.device, self.cuda = device, device.type == "cuda"
        work = arguments.work
        self.atlas = render.Atlas(os.path.join(work, "atlas.safetensors"))
        self.renderer = render.Renderer(self.atlas, device)
        self.tokenizer = bpe.Tokenizer.load(os.path.join(work, "Lance_3B"))
        self.config = model_files.read_config(os.path.join(work, "Lance_3B"))
        self.autoencoder = model_files.load_autoencoder(os.path.join(work, "Wan2.2_VAE.safetensors")).to(device)
        self.autoencoder.requires_grad_(False)
        if self.cuda:
            self.autoencoder.to(memory_format=torch.channels_last)
        torch.manual_seed(arguments.seed)
        self.networks = Networks(self.config)
        if arguments.start:
            self.networks.start_from(arguments.start)
        self.networks.to(device)
        self.rounded_from = arguments.rounded_from
        self.rounding = torch.zeros((), device=device)
        if self.rounded_from < 1:
            self.networks.round_weights(self.rounding)
        self.named = dict(self.networks.named_parameters())
        self.average = {name: parameter.detach().clone() for name, parameter in self.named.items()}
        self.average_rate = torch.tensor(0.01, device=device)
        self._make_templates(arguments)
        self.peak = {"muon": arguments.muon, "adam": arguments.adam}
        self.rates = {name: torch.zeros((), device=device) for name in self.peak}
        muon = [(p, is_muon_matrix(n, p)[1]) for n, p in self.named.items() if is_muon_matrix(n, p)[0]]
        rest = [p for n, p in self.named.items() if not is_muon_matrix(n, p)[0]]
        self.muon, self.adam = optim.Muon(muon, self.rates["muon"]), optim.Adam(rest, self.rates["adam"])
        for parameter in self.named.values():
            parameter.grad = torch.zeros_like(parameter)
        if arguments.compile:
            self.networks.trunk.layer_call = torch.compile(trunk.Layer.forward, dynamic=False)

    def _make_templates(self, arguments):
        prefixes = {task: self.tokenizer.prefix(text) for task, text in bpe.SYSTEM.items()}
        markers = self.tokenizer.vision_start, self.tokenizer.vision_end
        self.post = len(self.tokenizer.suffix())
        self.slots = batches.text_slots({task: len(tokens) for task, tokens in prefixes.items()})
        self.sizes = batches.BatchSizes(arguments.square, arguments.wide, arguments.edits, arguments.pictures)
        slots, device = self.slots, self.device
        cells = (VISION_SIDE // 28,) * 2
        self.templates = {
            "square": Template(prefixes["generate"], markers, [slots.generate], latent=(16, 16)).to(device),
            "wide": Template(prefixes["generate"], markers, [slots.generate], latent=(16, 24)).to(device),
            "tall": Template(prefixes["generate"], markers, [slots.generate], latent=(24, 16)).to(device),
            "edit": Template(
                prefixes["edit"], markers, [slots.edit], latent=(16, 16), vision=cells, condition=True
            ).to(device),
            "question": Template(
                prefixes["answer"], markers, [slots.long_answer, slots.short_answer, slots.short_answer], vision=cells
            ).to(device),
        }
        hidden = self.config["hidden_size"]
        self.latent_tables = {
            name: tables.latent_positions(*template.latent, hidden).to(device)
            for name, template in self.templates.items()
            if template.latent
        }

    def autocast(self):
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.cuda, cache_enabled=False)

    @torch.no_grad()
    def _encode(self, pixels):
        """Latents [batch, n, 48] f32 of pixels in 0..1."""
        with self.autocast():
            x = pixels * 2 - 1
            x = x.contiguous(memory_format=torch.channels_last) if self.cuda else x
            return autoencoder.rows_of(self.autoencoder.encode(x).float())

    @torch.no_grad()
    def _see_again(self, pixels):
        """The first share of the pictures as they come out of the autoencoder with noisy latents."""
        count = max(1, pixels.shape[0] // SEEN_AGAIN)
        side = pixels.shape[2] // 16, pixels.shape[3] // 16
        latents = self._encode(pixels[:count])
        latents = autoencoder.grid_of(latents + SEEN_NOISE * torch.randn_like(latents), *side)
        with self.autocast():
            again = self.autoencoder.decode(latents).float()
        again = ((again.clamp(-1, 1) * 0.5 + 0.5) * 255).round() / 255
        return torch.cat((again, pixels[count:]))

    def _draw(self, batch, name, height=256, width=256, target=""):
        return self.renderer.draw(batch[f"{name}.{target}background"], batch[f"{name}.{target}items"], height, width)

    def _features(self, pixels):
        small = render.resize(pixels, VISION_SIDE, VISION_SIDE)
        small = (small * 255).round().clamp(0, 255) / 255
        side = VISION_SIDE // vision.PATCH
        return self.networks.vision(vision.patches_of(small), (side, side))

    def _noisy(self, clean):
        """(x_t, t, velocity) with stratified times."""
        count = clean.shape[0]
        u = (torch.arange(count, device=clean.device) + torch.rand(count, device=clean.device)) / count
        t = TIME_SHIFT * u / (1 + (TIME_SHIFT - 1) * u)
        noise = torch.randn_like(clean)
        return clean + t[:, None, None] * (noise - clean), t, noise - clean

    def _prompt_rows(self, template, batch, name):
        """(und embeddings, rotary, bias) of a prompted task; a dropped caption is hidden and does not move the target."""
        text, caption, dropped = (batch[f"{name}.{part}"].long() for part in ("text", "caption", "dropped"))
        und = self.networks.trunk.embed(template.place_tokens([text]))
        valid = template.valid([caption + self.post], caption * dropped)
        positions = template.positions(caption * (1 - dropped), self.post)
        dtype = torch.bfloat16 if self.cuda else torch.float32
        return und, tables.rotary(positions), template.bias(valid, dtype)

    def _velocity_loss(self, template, und, gen, rotary, bias, velocity):
        if self.cuda:
            und, gen = und.to(torch.bfloat16), gen.to(torch.bfloat16)
        _, out = self.networks.trunk(und, gen, *rotary, bias)
        predicted = self.networks.trunk.velocity(out[:, template.target.start :])
        return F.mse_loss(predicted.float(), velocity)

    def generation_loss(self, batch):
        """Mean over the pictures of all sizes."""
        total, count = 0.0, 0
        # Both oblong sizes have as many rows, so they share one pass.
        for names in (("square",), ("wide", "tall")) if self.sizes.wide else (("square",),):
            parts = []
            for name in names:
                template = self.templates[name]
                height, width = (16 * side for side in template.latent)
                x, t, velocity = self._noisy(self._encode(self._draw(batch, name, height, width)))
                gen = self.networks.trunk.embed_latents(x, t, self.latent_tables[name][None])
                und, rotary, bias = self._prompt_rows(template, batch, name)
                parts.append((und, gen, *rotary, bias, velocity))
            und, gen, cos, sin, bias, velocity = (torch.cat(part) for part in zip(*parts))
            loss = self._velocity_loss(self.templates[names[0]], und, gen, (cos, sin), bias, velocity)
            total, count = total + loss * und.shape[0], count + und.shape[0]
        return total / count

    def edit_loss(self, batch):
        template = self.templates["edit"]
        source = self._see_again(self._draw(batch, "edit"))
        clean = self._encode(torch.cat((source, self._draw(batch, "edit", target="target_"))))
        condition, clean = clean.chunk(2)
        x, t, velocity = self._noisy(clean)
        embed = self.networks.trunk.embed_latents
        table = self.latent_tables["edit"][None]
        gen = torch.cat((embed(condition, torch.zeros_like(t), table), embed(x, t, table)), dim=1)
        und, rotary, bias = self._prompt_rows(template, batch, "edit")
        rows = template.vision_rows
        features = self._features(source).to(und.dtype)
        und = torch.cat((und[:, : rows.start], features, und[:, rows.stop :]), dim=1)
        return self._velocity_loss(template, und, gen, rotary, bias, velocity)

    def question_losses(self, batch):
        """(cross-entropy of answer tokens, cross-entropy of what each vision row sees)."""
        template = self.templates["question"]
        pixels = self._see_again(self._draw(batch, "question"))
        features = self._features(pixels)
        seen = F.cross_entropy(
            self.networks.seen(features).float().flatten(0, 1), self._seen_labels(batch["question.items"]).flatten()
        )
        texts = [batch[f"question.text{number}"].long() for number in range(3)]
        lengths = [batch[f"question.length{number}"].long() for number in range(3)]
        labels = torch.cat([batch[f"question.labels{number}"].long() for number in range(3)], dim=1)
        und = self.networks.trunk.embed(template.place_tokens(texts))
        rows = template.vision_rows
        und = torch.cat((und[:, : rows.start], features.to(und.dtype), und[:, rows.stop :]), dim=1)
        und = und.to(torch.bfloat16) if self.cuda else und
        bias = template.bias(template.valid(lengths), torch.bfloat16 if self.cuda else torch.float32)
        cos, sin = tables.rotary(template.base[None])
        batch_size = und.shape[0]
        out, _ = self.networks.trunk(und, None, cos.expand(batch_size, -1, -1), sin.expand(batch_size, -1, -1), bias)
        logits = self.networks.trunk.logits(out[:, template.texts[0].start :])
        return F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=-100), seen

    def _seen_labels(self, items):
        """[batch, cells] class of the sprite whose square covers each cell's centre."""
        items = items.long()
        cells = VISION_SIDE // 28
        centre = (torch.arange(cells, device=items.device) + 0.5) * 256 / cells
        sprite, x, y, large = (items[:, :, part][:, :, None, None] for part in range(4))
        half = torch.where(large > 0, words.LARGE // 2 - 24, words.SMALL // 2 - 12)
        covered = (
            (sprite >= 0)
            & ((centre[None, None, :, None] - y).abs() < half)
            & ((centre[None, None, None] - x).abs() < half)
        )
        bare = len(words.OBJECTS) + 1
        label = torch.where(covered, sprite.clamp(max=bare - 1), -1).amax(1)
        return torch.where(label < 0, bare, label).flatten(1)

    def losses(self, batch):
        """[4] f32: picture, edit, text, seen."""
        with self.autocast():
            picture, edit = self.generation_loss(batch), self.edit_loss(batch)
            text, seen = self.question_losses(batch)
        return torch.stack([picture.float(), edit.float(), text.float(), seen.float()])

    def step(self, batch):
        """One step on a batch; returns the losses and the gradient's norm."""
        torch._foreach_zero_([parameter.grad for parameter in self.named.values()])
        losses = self.losses(batch)
        (losses[0] + losses[1] + TEXT_WEIGHT * losses[2] + PLACE_WEIGHT * losses[3]).backward()
        scale, norm = optim.clip_scale(list(self.named.values()))
        self.muon.step(scale)
        self.adam.step(scale)
        optim.follow(list(self.average.values()), [p.detach() for p in self.named.values()], self.average_rate)
        return torch.cat((losses.detach(), norm[None]))

    def set_rates(self, progress):
        share = optim.rate_at(progress, flat_until=0.5)
        for name, rate in self.rates.items():
            rate.fill_(self.peak[name] * share)
        # The average forgets quickly while weights move fast, slowly at the end.
        self.average_rate.fill_(0.01 if progress < 0.6 else 0.004)
        self.rounding.fill_(1.0 if progress >= self.rounded_from else 0.0)

    def state(self):
        return list(self.named.values()) + list(self.average.values()) + self.muon.state() + self.adam.state()

    def averaged(self):
        """Networks with the averaged weights."""
        networks = Networks(self.config).to(self.device)
        networks.load_state_dict(self.average)
        if self.rounded_from < 1:
            networks.round_weights(self.rounding)
        return networks.requires_grad_(False)

    @torch.no_grad()
    def export(self, path):
        """Averaged weights; those that were rounded at the end are written as such."""
        linears = {
            f"{name}.weight" for name, module in self.networks.named_modules() if isinstance(module, trunk.Linear)
        }
        exported = {}
        for name, value in self.average.items():
            if not name.startswith("seen"):
                exported[name] = nvfp4.rounded(value) if self.rounding > 0 and name in linears else value
        safetensors_file.save(path, exported)


def add_arguments(parser):
    sizes = batches.BatchSizes()
    parser.add_argument("--work", required=True, help="folder that prepare.py and train_autoencoder.py filled")
    parser.add_argument("--planned_minutes", type=float, default=17.5, help="training time in all, over every run")
    parser.add_argument("--minutes", type=float, default=9.0, help="stop this run after so long")
    parser.add_argument("--max_steps", type=int, help="plan by steps instead of time")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--start", help="a model folder whose trunk and vision tower training begins with")
    parser.add_argument(
        "--rounded_from",
        type=float,
        default=0.5,
        help="share of the plan after which weights are rounded to NVFP4 on their way; 1: never",
    )
    parser.add_argument("--eager", action="store_true", help="launch every kernel instead of replaying a CUDA graph")
    parser.add_argument(
        "--compile", action="store_true", help="torch.compile for the trunk's layers (about a minute)"
    )
    parser.add_argument("--square", type=int, default=sizes.square)
    parser.add_argument("--wide", type=int, default=sizes.wide)
    parser.add_argument("--edits", type=int, default=sizes.edits)
    parser.add_argument("--pictures", type=int, default=sizes.pictures)
    parser.add_argument("--muon", type=float, default=3e-3)
    parser.add_argument("--adam", type=float, default=1.5e-3)
    parser.add_argument("--preview_seconds", type=float, default=60.0, help="0: none")


def train(arguments):
    device = run_loop.device_of(arguments.device)
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    start = time.monotonic()
    trainer = Trainer(arguments, device)
    log = run_loop.Log(os.path.join(arguments.work, "trunk.log"))
    checkpoint_path = os.path.join(arguments.work, "trunk.ckpt")
    checkpoint = run_loop.load_checkpoint(checkpoint_path, device)
    plan = run_loop.Plan(
        arguments.planned_minutes * 60,
        arguments.minutes,
        max_steps=arguments.max_steps,
        trained_seconds=checkpoint["seconds"] if checkpoint else 0.0,
        steps=checkpoint["steps"] if checkpoint else 0,
    )
    stream = batches.BatchStream(
        trainer.tokenizer,
        trainer.atlas.nameless,
        trainer.atlas.unknown_names,
        trainer.sizes,
        trainer.slots,
        arguments.seed * 100003 + plan.steps,
    )
    data = run_loop.StaticBatch(run_loop.loader_of(stream, arguments.workers, device), device)
    trainer.set_rates(0.0)
    step = run_loop.capture(lambda: trainer.step(data.tensors), device, arguments.eager)
    if checkpoint:
        run_loop.copy_state(trainer.state(), checkpoint["state"])
    log(f"ready after {time.monotonic() - start:.1f} s, step {plan.steps}, {plan.trained:.0f} s trained")
    plan.begin()
    shown, previewed, recent = plan.steps, plan.here, []
    while plan.go_on():
        trainer.set_rates(plan.progress)
        data.load_next()
        result = step()
        plan.steps += 1
        recent.append(result.clone())
        if plan.steps % 50 == 0 or plan.steps < 4 or arguments.max_steps:
            values = torch.stack(recent).mean(0).tolist()
            recent = []
            log(
                f"step {plan.steps} {plan.trained:.0f} s  picture {values[0]:.3f} edit {values[1]:.3f} text {values[2]:.3f} "
                f"seen {values[3]:.3f} norm {values[4]:.2f}  {1e3 * plan.here / (plan.steps - shown):.0f} ms a step, "
                f"{1e3 * data.wait_seconds / (plan.steps - shown):.1f} ms waiting for batches"
            )
            if values[0] != values[0]:
                raise FloatingPointError(f"losses are not numbers at step {plan.steps}")
        if arguments.preview_seconds and plan.here - previewed > arguments.preview_seconds:
            preview.write(trainer, os.path.join(arguments.work, "previews", f"{int(plan.trained):05d}.png"), log)
            run_loop.save_checkpoint(
                checkpoint_path, {"state": trainer.state(), "seconds": plan.trained, "steps": plan.steps}
            )
            previewed = plan.here
    if device.type == "cuda":
        torch.cuda.synchronize()
    run_loop.save_checkpoint(
        checkpoint_path, {"state": trainer.state(), "seconds": plan.trained, "steps": plan.steps}
    )
    trainer.export(os.path.join(arguments.work, "trunk.safetensors"))
    return run_loop.exit_status(plan)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    return train(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
