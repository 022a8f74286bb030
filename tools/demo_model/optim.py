"""Muon for matrices and Adam for the rest, every step the same kernels on tensors that stay where they are, so that a
CUDA graph can hold it. Rates are device tensors; the trainer writes them between steps."""

import torch

# Newton-Schulz quintic that pushes singular values towards 1 (Keller Jordan's coefficients).
_A, _B, _C = 3.4445, -4.7750, 2.0315
_ROUNDS = 5


def orthogonal(matrices):
    """Roughly U V^T of each of [n, rows, columns]."""
    x = matrices.to(torch.bfloat16 if matrices.is_cuda else torch.float32)
    tall = x.shape[1] > x.shape[2]
    x = x.transpose(1, 2) if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(_ROUNDS):
        gram = x @ x.transpose(1, 2)
        x = _A * x + (_B * gram + _C * gram @ gram) @ x
    return (x.transpose(1, 2) if tall else x).to(matrices.dtype)


class Muon:
    """Momentum, orthogonalised per matrix, scaled to a root mean square of 0.2 (Adam's usual size)."""

    def __init__(self, matrices, rate, momentum=0.95, decay=0.03):
        """matrices: [(parameter, number of equal row blocks that are matrices of their own)]."""
        self.rate, self.momentum, self.decay = rate, momentum, decay
        self.groups = {}
        for parameter, split in matrices:
            shape = (parameter.shape[0] // split, parameter.shape[1])
            self.groups.setdefault((shape, split), []).append(parameter)
        self.buffers = {key: [torch.zeros_like(p) for p in group] for key, group in self.groups.items()}

    @torch.no_grad()
    def step(self, scale):
        """scale: tensor that multiplies every gradient (clipping)."""
        for key, group in self.groups.items():
            (rows, columns), _ = key
            gradients, buffers = [p.grad for p in group], self.buffers[key]
            torch._foreach_mul_(gradients, scale)
            torch._foreach_mul_(buffers, self.momentum)
            torch._foreach_add_(buffers, gradients)
            looked_ahead = torch._foreach_add(gradients, torch._foreach_mul(buffers, self.momentum))
            stacked = torch.cat([m.view(-1, rows, columns) for m in looked_ahead])
            update = orthogonal(stacked) * (0.2 * max(rows, columns) ** 0.5) * self.rate
            parts = [u.reshape(p.shape) for u, p in zip(update.split(stacked.shape[0] // len(group)), group)]
            torch._foreach_mul_(group, 1 - self.rate * self.decay)
            torch._foreach_sub_(group, parts)

    def state(self):
        return [b for key in self.groups for b in self.buffers[key]]


class Adam:
    def __init__(self, parameters, rate, betas=(0.9, 0.97), epsilon=1e-8):
        self.parameters, self.rate, self.betas, self.epsilon = list(parameters), rate, betas, epsilon
        self.first = [torch.zeros_like(p) for p in self.parameters]
        self.second = [torch.zeros_like(p) for p in self.parameters]
        self.power = [torch.ones((), device=rate.device) for _ in betas]  # beta^step

    @torch.no_grad()
    def step(self, scale):
        gradients = [p.grad for p in self.parameters]
        torch._foreach_mul_(gradients, scale)
        for power, beta in zip(self.power, self.betas):
            power.mul_(beta)
        torch._foreach_lerp_(self.first, gradients, 1 - self.betas[0])
        torch._foreach_mul_(self.second, self.betas[1])
        torch._foreach_addcmul_(self.second, gradients, gradients, 1 - self.betas[1])
        denominator = torch._foreach_sqrt(self.second)
        torch._foreach_div_(denominator, (1 - self.power[1]).sqrt())
        torch._foreach_add_(denominator, self.epsilon)
        update = torch._foreach_div(self.first, denominator)
        torch._foreach_mul_(update, self.rate / (1 - self.power[0]))
        torch._foreach_sub_(self.parameters, update)

    def state(self):
        return self.first + self.second + self.power


@torch.no_grad()
def follow(averages, parameters, rate):
    """averages += rate * (parameters - averages), rate a device tensor."""
    torch._foreach_mul_(averages, 1 - rate)
    torch._foreach_add_(averages, torch._foreach_mul(parameters, rate))


def clip_scale(parameters, limit=1.0):
    """(factor <= 1 that brings the gradient's norm to `limit`, the norm)."""
    norm = torch.stack(torch._foreach_norm([p.grad for p in parameters])).norm()
    return (limit / (norm + 1e-6)).clamp(max=1.0), norm


def rate_at(progress, flat_until, warm_up=0.02):
    """Share of the peak rate at `progress` (0..1 of the time): warm-up, flat, linear to 0."""
    if progress < warm_up:
        return progress / warm_up + 0.01
    if progress < flat_until:
        return 1.0
    return max(0.0, (1 - progress) / (1 - flat_until))
