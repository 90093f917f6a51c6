"""Writes trajectories.txt: what PyTorch's optimizers, schedules and clipping do in float64.

Run: python trajectories.py > trajectories.txt   (needs torch; the tests need only the text)
A line is a kind, settings as key=value, "|" and numbers.
"""

import itertools

import torch

torch.manual_seed(7)
F = torch.float64
STEPS, MARKS = 10, (1, 2, 5, 10)
# Parameter "a" is [2, 3], "b" is [2]; b has no gradient at step 3.
START = [torch.randn(2, 3, dtype=F), torch.randn(2, dtype=F)]
GRADS = [[torch.randn(2, 3, dtype=F), torch.randn(2, dtype=F)] for _ in range(STEPS)]
GRADS[4][0].zero_()
GRADS[6][0] *= 100


def line(kind, settings, numbers):
    words = [kind] + [f"{k}={v}" for k, v in settings.items()]
    print(" ".join(words), "|", " ".join(repr(float(n)) for n in numbers))


def flat(tensors):
    return [x for t in tensors for x in t.detach().flatten().tolist()]


def trajectory(kind, cls, settings):
    params = [p.clone().requires_grad_() for p in START]
    kwargs = {k: (v if not isinstance(v, int) else bool(v)) for k, v in settings.items()}
    if "beta1" in kwargs:
        kwargs["betas"] = (kwargs.pop("beta1"), kwargs.pop("beta2"))
    optimizer = cls(params, **kwargs)
    for t in range(1, STEPS + 1):
        for p, g in zip(params, GRADS[t - 1]):
            p.grad = g.clone()
        if t == 3:
            params[1].grad = None
        optimizer.step()
        if t in MARKS:
            line(kind, {**settings, "step": t}, flat(params))


def schedule(kind, settings, make, steps=24, momentum=False):
    p = torch.zeros(1, dtype=F, requires_grad=True)
    optimizer = torch.optim.SGD([p], lr=0.3, momentum=0.9)
    s = make(optimizer)
    rates, momenta = [], []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        momenta.append(optimizer.param_groups[0]["momentum"])
        optimizer.step()
        s.step()
    line(kind, settings, rates)
    if momentum:
        line(kind + "-momentum", settings, momenta)


line("start", {}, flat(START))
for t in range(STEPS):
    line("grads", {"step": t + 1}, flat(GRADS[t]))

for wd, maximize in itertools.product((0.0, 0.1), (0, 1)):
    base = {"lr": 0.1, "weight_decay": wd, "maximize": maximize}
    trajectory("sgd", torch.optim.SGD, base)
    for extra in ({}, {"nesterov": 1}, {"dampening": 0.3}):
        trajectory("sgd", torch.optim.SGD, {**base, "momentum": 0.9, **extra})
for kind, cls in (("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)):
    trajectory(kind, cls, {})
    for wd, maximize, amsgrad in itertools.product((0.0, 0.1), (0, 1), (0, 1)):
        trajectory(kind, cls, {"lr": 0.05, "weight_decay": wd, "maximize": maximize, "amsgrad": amsgrad})
    trajectory(kind, cls, {"lr": 0.05, "beta1": 0.5, "beta2": 0.9, "eps": 1e-3})
    trajectory(kind, cls, {"lr": 0.05, "beta1": 0.0, "beta2": 0.0, "eps": 1e-8})

S = torch.optim.lr_scheduler
schedule("step-decay", {"every": 5, "gamma": 0.3}, lambda o: S.StepLR(o, 5, 0.3))
schedule("exponential", {"gamma": 0.9}, lambda o: S.ExponentialLR(o, 0.9))
schedule("warmup", {"steps": 8, "from": 0.1}, lambda o: S.LinearLR(o, 0.1, total_iters=8))
schedule("cosine", {"total": 23, "low": 0.01}, lambda o: S.CosineAnnealingLR(o, 23, eta_min=0.01))
schedule("cosine", {"warmup": 5, "from": 0.2, "total": 23, "low": 0.0},
         lambda o: S.SequentialLR(o, [S.LinearLR(o, 0.2, total_iters=5), S.CosineAnnealingLR(o, 18)], [5]))
schedule("one-cycle", {"total": 24}, lambda o: S.OneCycleLR(o, 0.3, total_steps=24), steps=23, momentum=True)
schedule("one-cycle", {"total": 24, "linear": 1, "three": 1, "peak": 0.4, "start": 10, "end": 100},
         lambda o: S.OneCycleLR(o, 0.3, total_steps=24, anneal_strategy="linear", three_phase=True, pct_start=0.4,
                                div_factor=10, final_div_factor=100), steps=23, momentum=True)

for p in (2.0, 1.0, 3.0, float("inf")):
    for most in (1.0, 1e6):
        params = [g.clone().requires_grad_() for g in GRADS[0]]
        for q, g in zip(params, GRADS[0]):
            q.grad = g.clone()
        norm = torch.nn.utils.clip_grad_norm_(params, most, norm_type=p)
        line("clip-norm", {"max": most, "p": p}, [norm.item()] + flat([q.grad for q in params]))
