"""The cases that train a model in PyTorch: single steps, and whole epochs with a loader."""

import time

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from cases import BATCHES, Case
from sampling import sample
from torch_models import MODELS, without_dropout

LOSSES = 10


def loss_of(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(model(x).flatten(0, -2), y.flatten())


def optimizer_of(case: Case, parameters, flags: set[str]) -> torch.optim.Optimizer:
    options = {"lr": case.lr} | ({"fused": True} if "fused" in flags else {})
    match case.optimizer:
        case "sgd":
            return torch.optim.SGD(parameters, **options)
        case "momentum":
            return torch.optim.SGD(parameters, momentum=0.9, **options)
        case "adam":
            return torch.optim.Adam(parameters, **options)
        case "adamw":
            return torch.optim.AdamW(parameters, **options)
    raise ValueError(f"unknown optimizer {case.optimizer!r}")


def flags_of(variant: str) -> set[str]:
    return set(variant.split("+")) - {"eager"}


class Training:
    """One model from the given weights, its optimizer and its batches; `step(i)` is forward, backward and update."""

    def __init__(self, case: Case, weights: dict, data: dict, variant: str, dropout: bool) -> None:
        flags = flags_of(variant)
        self.model = MODELS[case.model](case)
        if not dropout:
            without_dropout(self.model)
        self.model.load_state_dict(weights)
        self.x, self.y = list(data["x"].unbind(0)), list(data["y"].unbind(0))
        if "channels_last" in flags:
            self.model.to(memory_format=torch.channels_last)
            self.x = [x.contiguous(memory_format=torch.channels_last) for x in self.x]
        self.optimizer = optimizer_of(case, self.model.parameters(), flags)
        self.loss = torch.compile(loss_of, dynamic=False) if "compile" in flags else loss_of
        self.update = torch.compile(self.optimizer.step) if "compile_opt" in flags else self.optimizer.step

    def step(self, i: int) -> torch.Tensor:
        return self.learn(self.x[i % BATCHES], self.y[i % BATCHES])

    def learn(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        loss = self.loss(self.model, x, y)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.update()
        return loss


def first_losses(case: Case, weights: dict, data: dict, variant: str) -> tuple[list[float], float]:
    """Ten losses with dropout off, and the moment (Unix seconds) the first was there."""
    training = Training(case, weights, data, variant, dropout=False)
    losses = [training.step(0).item()]
    at = time.time()
    losses += [training.step(i).item() for i in range(1, LOSSES)]
    return losses, at


def train(case: Case, weights: dict, data: dict, variant: str, steps: int) -> dict:
    losses, at = first_losses(case, weights, data, variant)
    rows = {"step": sample(Training(case, weights, data, variant, dropout=True).step, steps, warmup=case.warmup)}
    return {"variant": variant, "losses": losses, "first_step_at": at, "rows": rows}


def epoch(case: Case, weights: dict, data: dict, variant: str, steps: int) -> dict:
    """One pass over all rows in a new order. Losses: of the first ten batches, in the order of the file."""
    x, y = data["x"][0], data["y"][0]
    rows = 64
    first = {"x": x[: LOSSES * rows].view(LOSSES, rows, -1), "y": y[: LOSSES * rows].view(LOSSES, rows)}
    losses, at = first_losses(case, weights, first, variant)
    training = Training(case, weights, first, variant, dropout=True)
    dataset = TensorDataset(x, y)
    # Batches of indices: the samples are taken in one piece, and not one by one.
    sampler = BatchSampler(RandomSampler(dataset), batch_size=rows, drop_last=False)
    loader = DataLoader(dataset, sampler=sampler, batch_size=None)

    def run(_: int) -> None:
        for batch in loader:
            training.learn(*batch)

    return {"variant": variant, "losses": losses, "first_step_at": at, "rows": {"step": sample(run, steps, 1, case.warmup)}}
