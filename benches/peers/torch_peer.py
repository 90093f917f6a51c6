#!/usr/bin/env python3
"""The PyTorch side of the comparison: one case, its first ten losses, then its timed steps, as one line of JSON.

    python3 torch_peer.py --case C1 --weights FILE --data FILE --threads 2 --variant fused --steps 5000

A variant is `eager` or flags joined by `+`: fused (the optimizer's one-kernel form), channels_last, compile (forward,
loss and backward through torch.compile), compile_opt (the optimizer's step through torch.compile). run.py finds the
fastest. README.md states the contract.
"""

import argparse
import gc
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable

os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # no worker processes that outlive the compilation

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from cases import BATCHES, CASES, Case

LOSSES = 10
WARMUP_STEPS = 20
WARMUP_SECONDS = 0.3
MAX_SECONDS = 20.0  # a run stops here with the steps it has, at least WARMUP_STEPS of them
OPS_PER_BLOCK = 1000  # a clock reading costs as much as a one-element add: blocks are timed


class Mlp(nn.Module):
    def __init__(self, weights: dict[str, torch.Tensor]) -> None:
        super().__init__()
        hidden, inputs = weights["fc1.weight"].shape
        self.fc1 = nn.Linear(inputs, hidden)
        self.fc2 = nn.Linear(hidden, weights["fc2.weight"].shape[0])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(F.relu(self.fc1(x)))


class Cnn(nn.Module):
    """conv 1→32, relu, conv 32→64, relu, max pool 2, dropout ¼, fc 9216→128, relu, dropout ½, fc 128→10."""

    def __init__(self, dropout: bool) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 32, 3), nn.Conv2d(32, 64, 3)
        self.dropout1, self.dropout2 = nn.Dropout(0.25 if dropout else 0.0), nn.Dropout(0.5 if dropout else 0.0)
        self.fc1, self.fc2 = nn.Linear(9216, 128), nn.Linear(128, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.conv2(F.relu(self.conv1(x))))
        x = self.dropout1(F.max_pool2d(x, 2))
        x = F.relu(self.fc1(torch.flatten(x, 1)))
        return self.fc2(self.dropout2(x))


def loss_of(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(model(x), y)


class Training:
    """One model from the given weights, its optimizer and its batches; `step(i)` is forward, backward and update."""

    def __init__(self, case: Case, weights: dict, data: dict, variant: str, dropout: bool) -> None:
        flags = set(variant.split("+")) - {"eager"}
        self.model = Cnn(dropout) if "conv1.weight" in weights else Mlp(weights)
        self.model.load_state_dict(weights)
        self.x, self.y = list(data["x"].unbind(0)), list(data["y"].unbind(0))
        if "channels_last" in flags:
            self.model.to(memory_format=torch.channels_last)
            self.x = [x.contiguous(memory_format=torch.channels_last) for x in self.x]
        kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[case.optimizer]
        self.optimizer = kind(self.model.parameters(), lr=case.lr, **({"fused": True} if "fused" in flags else {}))
        self.loss = torch.compile(loss_of, dynamic=False) if "compile" in flags else loss_of
        self.update = torch.compile(self.optimizer.step) if "compile_opt" in flags else self.optimizer.step

    def step(self, i: int) -> torch.Tensor:
        loss = self.loss(self.model, self.x[i % BATCHES], self.y[i % BATCHES])
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.update()
        return loss


def sample(run: Callable[[int], object], steps: int, per_block: int = 1) -> dict[str, float]:
    """Median, 10th and 90th percentile in microseconds of one call, after the warm-up; and how many were timed."""
    start, i = time.perf_counter(), 0
    while i < WARMUP_STEPS or time.perf_counter() - start < WARMUP_SECONDS:
        run(i)
        i += 1
    gc.collect()
    gc.freeze()
    clock, times = time.perf_counter_ns, []
    deadline = clock() + int(MAX_SECONDS * 1e9)
    for step in range(i, i + steps):
        before = clock()
        run(step)
        times.append((clock() - before) / (1e3 * per_block))
        if len(times) >= WARMUP_STEPS and clock() > deadline:
            break
    cuts = statistics.quantiles(times, n=10, method="inclusive")
    return {"median_us": statistics.median(times), "p10_us": cuts[0], "p90_us": cuts[-1], "timed": len(times)}


def first_losses(case: Case, weights: dict, data: dict, variant: str) -> tuple[list[float], float, float]:
    """Ten losses with dropout off, the moment (Unix seconds) the first was there, and how long the first step took."""
    before = time.perf_counter()
    training = Training(case, weights, data, variant, dropout=False)
    losses = [training.step(0).item()]
    at, took = time.time(), time.perf_counter() - before
    losses += [training.step(i).item() for i in range(1, LOSSES)]
    return losses, at, took


def train(case: Case, weights: dict, data: dict, variant: str, steps: int) -> dict:
    losses, at, took = first_losses(case, weights, data, variant)
    rows = {"step": sample(Training(case, weights, data, variant, dropout=True).step, steps)}
    return {"variant": variant, "losses": losses, "first_step_at": at, "first_step_took_s": took, "rows": rows}


def matmul(weights: dict, data: dict, steps: int) -> dict:
    """c = a b. In place of losses: the mean square of each of ten blocks of 100 rows of c."""
    a, b = data["x"], weights["b"]
    with torch.no_grad():
        c = a @ b
        at = time.time()
        checks = [c[100 * i : 100 * (i + 1)].square().mean().item() for i in range(LOSSES)]
        rows = {"step": sample(lambda _: a @ b, steps)}
    return {"variant": "eager", "losses": checks, "first_step_at": at, "rows": rows}


def ops(weights: dict, data: dict, steps: int) -> dict:
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", required=True, choices=list(CASES))
    parser.add_argument("--weights", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--variant", default="eager")
    parser.add_argument("--steps", type=int, help="timed steps (default: the case's own)")
    args = parser.parse_args()
    case = CASES[args.case]
    steps = case.steps if args.steps is None else args.steps
    known = {"eager", "fused", "channels_last", "compile", "compile_opt"}
    if unknown := set(args.variant.split("+")) - known:
        sys.exit(f"torch_peer: unknown variant {sorted(unknown)}: give one of {sorted(known)}, or some joined by '+'")
    if steps < 2 or args.threads < 1:
        sys.exit(f"torch_peer: --steps {steps} must be at least 2 and --threads {args.threads} at least 1")
    torch.set_num_threads(args.threads)
    weights, data = load_file(args.weights), load_file(args.data)
    if case.kind == "train":
        result = train(case, weights, data, args.variant, steps)
    else:
        result = matmul(weights, data, steps) if case.kind == "matmul" else ops(weights, data, steps)
    about = {"peer": "torch", "version": torch.__version__, "case": args.case, "threads": args.threads, "steps": steps}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({**about, **result, "peak_rss_kib": peak}))


if __name__ == "__main__":
    main()
