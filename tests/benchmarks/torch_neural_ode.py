"""The neural ODE of `bench_neural_ode.py` by torchdiffeq, as its examples are written: one solve for a whole batch."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torchdiffeq import odeint


def train(
    layers: list, batches: Iterator[np.ndarray], held_out, ts, steps: int, every: int, rate: float, target: float
):
    """Steps and validation loss of a training that ends at the loss `target`.

    `layers` are pairs of weights and offsets, with tanh between them; `rate` falls to 0 as a cosine.
    """
    torch.set_default_dtype(torch.float64)
    linear = [torch.nn.Linear(*np.shape(weight)[::-1]) for weight, _ in layers]
    for layer, (weight, offset) in zip(linear, layers, strict=True):
        layer.weight.data, layer.bias.data = torch.tensor(np.array(weight)), torch.tensor(np.array(offset))
    between = [part for layer in linear for part in (layer, torch.nn.Tanh())][:-1]
    network, ts, held_out = torch.nn.Sequential(*between), torch.tensor(np.array(ts)), torch.tensor(np.array(held_out))

    def loss(windows):
        states = odeint(lambda t, u: network(u), windows[:, 0], ts, method="dopri5", rtol=1e-4, atol=1e-6)
        return torch.mean((states.transpose(0, 1) - windows) ** 2)

    optimizer = torch.optim.Adam(network.parameters(), rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: 0.5 * (1 + math.cos(math.pi * n / steps)))
    value = float("nan")
    for number in range(1, steps + 1):
        optimizer.zero_grad()
        loss(torch.tensor(np.array(next(batches)))).backward()
        optimizer.step()
        schedule.step()
        if number % every == 0:
            with torch.no_grad():
                value = float(loss(held_out))
            if value <= target:
                return number, value
    return steps, value
