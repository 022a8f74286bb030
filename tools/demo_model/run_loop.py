"""What both trainers share: steps captured in a CUDA graph, time plans that survive a stop, checkpoints, logs."""

import os
import sys
import time

import torch


def device_of(name):
    return torch.device(name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu")


class StaticBatch:
    """Batches copied into tensors that never move, as a captured step needs."""

    def __init__(self, loader, device):
        self.iterator, self.device = iter(loader), device
        first = next(self.iterator)
        self.tensors = {name: tensor.to(device) for name, tensor in first.items()}
        self.wait_seconds = 0.0  # what the device waited for the workers

    def load_next(self):
        start = time.monotonic()
        batch = next(self.iterator)
        self.wait_seconds += time.monotonic() - start
        for name, tensor in batch.items():
            self.tensors[name].copy_(tensor, non_blocking=True)


def loader_of(stream, workers, device):
    return torch.utils.data.DataLoader(
        stream,
        batch_size=None,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        prefetch_factor=4 if workers else None,
        persistent_workers=workers > 0,
        # Workers never touch the device, and inherit the tokenizer's caches.
        multiprocessing_context="fork" if workers else None,
    )


def capture(step, device, eager=False, warm_ups=3):
    """A callable that replays `step`, which returns a tensor; on a CPU, or if eager, `step` itself. Warm-up steps are
    steps: a checkpoint is loaded after them."""
    if device.type != "cuda" or eager:
        return step
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(warm_ups):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    # The loader's thread pins memory meanwhile, which a globally watched capture would not allow.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        result = step()

    def replay():
        graph.replay()
        return result

    return replay


class Log:
    """Lines to a file and to the terminal."""

    def __init__(self, path):
        self.file = open(path, "a", encoding="utf-8")

    def __call__(self, text):
        print(text, flush=True)
        self.file.write(text + "\n")
        self.file.flush()


class Plan:
    """Trained time against planned time, over stops and resumptions; `progress` drives the rates."""

    def __init__(self, planned_seconds, minutes, trained_seconds=0.0, steps=0, max_steps=None):
        self.planned, self.limit = planned_seconds, minutes * 60
        self.before, self.steps, self.max_steps = trained_seconds, steps, max_steps
        self.start = None

    def begin(self):
        self.start = time.monotonic()

    @property
    def here(self):
        return time.monotonic() - self.start if self.start is not None else 0.0

    @property
    def trained(self):
        return self.before + self.here

    @property
    def progress(self):
        if self.max_steps:
            return min(1.0, self.steps / self.max_steps)
        return min(1.0, self.trained / self.planned)

    def go_on(self):
        return self.progress < 1 and self.here < self.limit


def save_checkpoint(path, content):
    torch.save(content, path + ".part")
    os.replace(path + ".part", path)


def load_checkpoint(path, device):
    return torch.load(path, map_location=device, weights_only=True) if os.path.exists(path) else None


def copy_state(targets, values):
    """Copies checkpoint tensors into ones that a captured step already refers to."""
    if len(targets) != len(values):
        raise ValueError(f"checkpoint holds {len(values)} tensors, expected {len(targets)}")
    with torch.no_grad():
        for target, value in zip(targets, values):
            target.copy_(value)


def exit_status(plan):
    """0 when the plan is done, 3 when there is more to do: the caller runs the program again."""
    if plan.progress >= 1:
        return 0
    print(f"stopped at {plan.trained:.0f} of {plan.planned:.0f} s; run again to go on", file=sys.stderr)
    return 3
