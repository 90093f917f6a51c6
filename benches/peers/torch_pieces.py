"""The cases in PyTorch that are a piece of a training: products, single operations, an update, a block, a head, files."""

import os
import pathlib
import tempfile
import time

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from cases import Case
from sampling import WARMUP_STEPS, sample
from torch_train import LOSSES, flags_of, optimizer_of

OPS_PER_BLOCK = 1000  # a clock reading costs as much as a one-element add: blocks are timed


def matmul(case: Case, weights: dict, data: dict, variant: str, steps: int) -> dict:
    """c = a b. In place of losses: the mean square of each of ten blocks of 100 rows of c."""
    a, b = data["x"], weights["b"]
    with torch.no_grad():
        c = a @ b
        at = time.time()
        checks = [c[100 * i : 100 * (i + 1)].square().mean().item() for i in range(LOSSES)]
        rows = {"step": sample(lambda _: a @ b, steps)}
    return {"variant": "eager", "losses": checks, "first_step_at": at, "rows": rows}


def ops(case: Case, weights: dict, data: dict, variant: str, steps: int) -> dict:
    """`add`: x + w. `graph3`: relu(w · x).sum(), forward and backward. Losses: ten SGD steps of it, rate 0.1."""
    x, plain = data["x"], weights["w"]
    w = plain.clone().requires_grad_()
    losses, at = [], 0.0
    for _ in range(LOSSES):
        loss = (w * x).relu().sum()
        loss.backward()
        losses.append(loss.item())
        at = at or time.time()
        with torch.no_grad():
            w -= 0.1 * w.grad
        w.grad = None

    def add(_: int) -> None:
        for _ in range(OPS_PER_BLOCK):
            x + plain

    def graph3(_: int) -> None:
        for _ in range(OPS_PER_BLOCK):
            w.grad = None
            (w * x).relu().sum().backward()

    rows = {
        "add": sample(add, steps, OPS_PER_BLOCK),
        "graph3": sample(graph3, max(steps // 10, WARMUP_STEPS), OPS_PER_BLOCK),
    }
    return {"variant": "eager", "losses": losses, "first_step_at": at, "rows": rows}


def mean_squares(blocks: list[torch.Tensor]) -> list[float]:
    return [block.square().mean().item() for block in blocks]


def update(case: Case, weights: dict, data: dict, variant: str, steps: int) -> dict:
    """The optimizer's step alone. In place of losses: the mean squares of the first ten tensors after ten steps."""
    parameters = [torch.nn.Parameter(weights[name]) for name in case.weights]
    for parameter, gradient in zip(parameters, data["x"], strict=True):
        parameter.grad = gradient
    optimizer = optimizer_of(case, parameters, flags_of(variant))
    optimizer.step()
    at = time.time()
    for _ in range(1, LOSSES):
        optimizer.step()
    losses = mean_squares([p.detach() for p in parameters[:LOSSES]])
    rows = {"step": sample(lambda _: optimizer.step(), steps, warmup=case.warmup)}
    return {"variant": variant, "losses": losses, "first_step_at": at, "rows": rows}


def residual(case: Case, weights: dict, data: dict, variant: str, steps: int) -> dict:
    """In place of losses: mean squares of five blocks of 400 rows of the result, and of x's gradient, without dropout."""

    def block(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, p: float) -> torch.Tensor:
        return x + F.dropout(F.gelu(F.layer_norm(x, x.shape[-1:], weight, bias)), p)

    block = torch.compile(block) if "compile" in flags_of(variant) else block
    x = data["x"].clone().requires_grad_()
    weight, bias = (weights[f"norm.{name}"].requires_grad_() for name in ("weight", "bias"))
    upstream = data["x"].roll(1, 0)

    def run(p: float) -> torch.Tensor:
        x.grad = weight.grad = bias.grad = None
        y = block(x, weight, bias, p)
        y.backward(upstream)
        return y

    y = run(0.0)
    at = time.time()
    losses = mean_squares([*y.detach()[:2000].split(400), *x.grad[:2000].split(400)])
    rows = {"step": sample(lambda _: run(0.1), steps, warmup=case.warmup)}
    return {"variant": variant, "losses": losses, "first_step_at": at, "rows": rows}


def head(case: Case, weights: dict, data: dict, variant: str, steps: int) -> dict:
    """In place of losses: the loss of four batches, mean squares of the last x's gradient and of five blocks of the weight's."""

    def loss_of(x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(F.linear(x, weight), y)

    loss_of = torch.compile(loss_of) if "compile" in flags_of(variant) else loss_of
    batches = [(x.clone().requires_grad_(), y) for x, y in zip(data["x"], data["y"], strict=True)]
    weight = weights["weight"].requires_grad_()

    def run(i: int) -> torch.Tensor:
        x, y = batches[i % len(batches)]
        x.grad = weight.grad = None
        loss = loss_of(x, y, weight)
        loss.backward()
        return loss

    losses = [run(0).item()]
    at = time.time()
    losses += [run(i).item() for i in range(1, len(batches))]
    losses += mean_squares([batches[-1][0].grad, *weight.grad[:50000].split(10000)])
    rows = {"step": sample(run, steps, warmup=case.warmup)}
    return {"variant": variant, "losses": losses, "first_step_at": at, "rows": rows}


def files(case: Case, weights: dict, data: dict, variant: str, steps: int) -> dict:
    """Parameters and both of Adam's moments, saved, loaded and mapped. Losses: mean squares of ten loaded tensors."""
    folder = pathlib.Path(tempfile.mkdtemp(dir="/dev/shm"))
    state = {f"{part}.{name}": t.clone() for part in ("model", "exp_avg", "exp_avg_sq") for name, t in weights.items()}
    file = folder / "state"

    def save(_: int) -> None:
        save_file(state, file) if "safetensors" in variant else torch.save(state, file)

    def load(_: int) -> dict:
        return load_file(file) if "safetensors" in variant else torch.load(file)

    def map_(_: int) -> dict:
        return load_file(file) if "safetensors" in variant else torch.load(file, mmap=True)

    try:
        save(0)
        loaded = load(0)
        at = time.time()
        losses = mean_squares([loaded[f"model.{name}"] for name in sorted(weights)[:LOSSES]])
        del loaded
        rows = {
            name: sample(run, steps, warmup=case.warmup) for name, run in (("save", save), ("load", load), ("map", map_))
        }
    finally:
        file.unlink(missing_ok=True)
        os.rmdir(folder)
    return {"variant": variant, "losses": losses, "first_step_at": at, "rows": rows}
