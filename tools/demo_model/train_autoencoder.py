#!/usr/bin/env python3
"""Trains the image-only autoencoder on rendered scenes, on one GPU.

Reads --work/atlas.safetensors; leaves --work/autoencoder.ckpt (to go on from) and --work/Wan2.2_VAE.safetensors (averaged
weights, latents of unit deviation folded into conv1 and conv2, BF16). Exit status 3: stopped by --minutes before the
plan's end; run it again.
"""

import argparse
import os
import sys
import time

import torch
from torch.nn import functional as F

import autoencoder
import batches
import model_files
import optim
import preview
import render
import run_loop
import safetensors_file

NOISE = 0.4  # greatest deviation of the noise on latents in training
LOG_VARIANCE = -6.0  # what the file says of its posterior: nearly certain
AVERAGE_LATENTS = 0.02


class Trainer:
    def __init__(self, arguments, device):
        self.device, self.cuda = device, device.type == "cuda"
        self.atlas = render.Atlas(os.path.join(arguments.work, "atlas.safetensors"))
        self.renderer = render.Renderer(self.atlas, device)
        torch.manual_seed(arguments.seed)
        self.model = autoencoder.Autoencoder(arguments.base, arguments.base).to(device)
        self._initialise()
        if self.cuda:
            self.model.to(memory_format=torch.channels_last)
        self.named = dict(self.model.named_parameters())
        self.average = {name: parameter.detach().clone() for name, parameter in self.named.items()}
        self.average_rate = torch.tensor(0.01, device=device)
        self.rate = torch.zeros((), device=device)
        self.peak = arguments.rate
        self.adam = optim.Adam(self.named.values(), self.rate)
        # Mean and variance of the raw latents, for the fold at the end.
        self.latent_mean = torch.zeros(autoencoder.CHANNELS, device=device)
        self.latent_variance = torch.ones(autoencoder.CHANNELS, device=device)
        for parameter in self.named.values():
            parameter.grad = torch.zeros_like(parameter)
        self.groups = [("square", arguments.square, 256, 256)]
        if arguments.wide:
            self.groups += [("wide", arguments.wide, 256, 384), ("tall", arguments.wide, 384, 256)]
        self.forward = torch.compile(self._forward, dynamic=False) if arguments.compile else self._forward

    def _initialise(self):
        for name, parameter in self.model.named_parameters():
            if name.endswith("residual.6.weight"):
                torch.nn.init.normal_(parameter, std=0.3 * parameter[0].numel() ** -0.5)
            elif name.endswith("bias"):
                torch.nn.init.zeros_(parameter)

    def _forward(self, pixels, raw_noise):
        """(reconstruction, raw latents) of pixels in -1..1; noise is added to latents of zero mean and unit variance."""
        raw = self.model.moments(pixels)[0].float()
        mean = raw.mean((0, 2, 3), keepdim=True)
        deviation = (raw.var((0, 2, 3), keepdim=True) + 1e-4).sqrt()
        latents = (raw - mean) / deviation + raw_noise
        z = self.model.conv2(latents)
        return autoencoder.unpatchify(self.model.decoder(z)).float(), raw

    def step(self, batch):
        """One step; returns [L1, mean square, norm]."""
        torch._foreach_zero_([parameter.grad for parameter in self.named.values()])
        total, report = 0.0, 0.0
        count = sum(group[1] for group in self.groups)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.cuda, cache_enabled=False):
            for name, size, height, width in self.groups:
                pixels = (
                    self.renderer.draw(batch[name + ".background"], batch[name + ".items"], height, width) * 2 - 1
                )
                pixels = pixels.contiguous(memory_format=torch.channels_last) if self.cuda else pixels
                deviation = NOISE * torch.rand(size, 1, 1, 1, device=self.device)
                noise = deviation * torch.randn(
                    size, autoencoder.CHANNELS, height // 16, width // 16, device=self.device
                )
                output, raw = self.forward(pixels, noise)
                absolute, square = (output - pixels).abs().mean(), F.mse_loss(output, pixels)
                edges = ((output - pixels).diff(dim=2).abs().mean() + (output - pixels).diff(dim=3).abs().mean()) / 2
                total = total + (absolute + 2 * square + 0.5 * edges) * (size / count)
                report = report + torch.stack([absolute.detach(), square.detach()]) * (size / count)
                with torch.no_grad():
                    self.latent_mean.lerp_(raw.mean((0, 2, 3)), AVERAGE_LATENTS)
                    self.latent_variance.lerp_(raw.var((0, 2, 3)), AVERAGE_LATENTS)
        total.backward()
        scale, norm = optim.clip_scale(list(self.named.values()))
        self.adam.step(scale)
        optim.follow(list(self.average.values()), [p.detach() for p in self.named.values()], self.average_rate)
        return torch.cat((report, norm[None]))

    def set_rates(self, progress):
        self.rate.fill_(self.peak * optim.rate_at(progress, flat_until=0.3))
        self.average_rate.fill_(0.01 if progress < 0.7 else 0.004)

    def state(self):
        return (
            list(self.named.values())
            + list(self.average.values())
            + self.adam.state()
            + [self.latent_mean, self.latent_variance]
        )

    @torch.no_grad()
    def folded(self):
        """The public state dict: normalised latents (mu - mean) / std are the training's latents of unit deviation."""
        # Copies: the fold is in place, and the averages are to be folded again later.
        state = {name: value.detach().float().clone().contiguous() for name, value in self.average.items()}
        mean, inverse = (c.flatten() for c in autoencoder.latent_constants(self.device))
        channels = autoencoder.CHANNELS
        gain = 1 / (self.latent_variance + 1e-4).sqrt() / inverse
        weight, bias = state["conv1.weight"], state["conv1.bias"]
        weight[:channels] *= gain[:, None, None, None]
        bias[:channels] = (bias[:channels] - self.latent_mean) * gain + mean
        weight[channels:], bias[channels:] = 0, LOG_VARIANCE
        weight, bias = state["conv2.weight"], state["conv2.bias"]
        bias -= (weight[:, :, 0, 0] * (mean * inverse)).sum(1)
        weight *= inverse[None, :, None, None]
        return {name: value.to(torch.bfloat16) for name, value in state.items()}

    def export(self, path):
        safetensors_file.save(path, model_files.autoencoder_to_public(self.folded()))

    @torch.no_grad()
    def judge(self, batch, path, log):
        """PSNR of the exported weights on a batch, without noise and with 0.2; writes originals above copies."""
        model = autoencoder.Autoencoder(
            self.model.encoder.conv1.out_channels, self.model.decoder.conv1.out_channels // 4
        )
        model = model.to(self.device)
        model.load_state_dict({name: value.float() for name, value in self.folded().items()})
        name, _, height, width = self.groups[0]
        items = batch[name + ".items"][:16]
        pixels = self.renderer.draw(batch[name + ".background"][:16], items, height, width) * 2 - 1
        latents = model.encode(pixels)
        figures = []
        for noise in (0.0, 0.2):
            copy = model.decode(latents + noise * torch.randn_like(latents))
            error = (preview.to_bytes(copy).float() - preview.to_bytes(pixels).float()).square().mean((1, 2, 3))
            figures.append(float((10 * torch.log10(255.0**2 / error.clamp_min(1e-3))).mean()))
        log(
            f"preview {os.path.basename(path)}: {figures[0]:.1f} dB, {figures[1]:.1f} dB with noise 0.2; latents' "
            f"deviation {float(latents.std()):.2f}"
        )
        rows = [torch.cat(list(preview.to_bytes(x[:6]).cpu()), dim=1) for x in (pixels, copy)]
        preview.write_png(path, torch.cat(rows, dim=0)[::2, ::2])
        return figures[0]


def add_arguments(parser):
    parser.add_argument("--work", required=True, help="folder that prepare.py filled")
    parser.add_argument("--planned_minutes", type=float, default=5.0, help="training time in all, over every run")
    parser.add_argument("--minutes", type=float, default=9.0, help="stop this run after so long")
    parser.add_argument("--max_steps", type=int, help="plan by steps instead of time")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--eager", action="store_true", help="launch every kernel instead of replaying a CUDA graph")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--base", type=int, default=32, help="width of the first encoder and last decoder stage")
    parser.add_argument("--square", type=int, default=72)
    parser.add_argument("--wide", type=int, default=8)
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--preview_seconds", type=float, default=60.0, help="0: none")


def train(arguments):
    device = run_loop.device_of(arguments.device)
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    start = time.monotonic()
    trainer = Trainer(arguments, device)
    log = run_loop.Log(os.path.join(arguments.work, "autoencoder.log"))
    checkpoint_path = os.path.join(arguments.work, "autoencoder.ckpt")
    checkpoint = run_loop.load_checkpoint(checkpoint_path, device)
    plan = run_loop.Plan(
        arguments.planned_minutes * 60,
        arguments.minutes,
        max_steps=arguments.max_steps,
        trained_seconds=checkpoint["seconds"] if checkpoint else 0.0,
        steps=checkpoint["steps"] if checkpoint else 0,
    )
    stream = batches.AutoencoderStream(trainer.atlas.nameless, trainer.groups, arguments.seed * 100003 + plan.steps)
    data = run_loop.StaticBatch(run_loop.loader_of(stream, arguments.workers, device), device)
    trainer.set_rates(0.0)
    step = run_loop.capture(lambda: trainer.step(data.tensors), device, arguments.eager)
    if checkpoint:
        run_loop.copy_state(trainer.state(), checkpoint["state"])
    log(f"ready after {time.monotonic() - start:.1f} s, step {plan.steps}, {plan.trained:.0f} s trained")
    plan.begin()
    before, previewed, recent = plan.steps, 0.0, []
    pictures = sum(group[1] for group in trainer.groups)

    def store():
        run_loop.save_checkpoint(
            checkpoint_path, {"state": trainer.state(), "seconds": plan.trained, "steps": plan.steps}
        )

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
                f"step {plan.steps} {plan.trained:.0f} s  L1 {values[0]:.4f} mean square {values[1]:.5f} norm {values[2]:.2f}  "
                f"{(plan.steps - before) * pictures / plan.here:.0f} pictures/s, {data.wait_seconds:.1f} s waiting"
            )
            if values[0] != values[0]:
                raise FloatingPointError(f"losses are not numbers at step {plan.steps}")
        if arguments.preview_seconds and plan.here - previewed > arguments.preview_seconds:
            trainer.judge(
                data.tensors,
                os.path.join(arguments.work, "previews", f"autoencoder_{int(plan.trained):05d}.png"),
                log,
            )
            store()
            previewed = plan.here
    if device.type == "cuda":
        torch.cuda.synchronize()
    trainer.judge(data.tensors, os.path.join(arguments.work, "previews", "autoencoder.png"), log)
    store()
    trainer.export(os.path.join(arguments.work, "Wan2.2_VAE.safetensors"))
    return run_loop.exit_status(plan)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    return train(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
