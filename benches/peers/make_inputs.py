#!/usr/bin/env python3
"""Writes the weights and batches of every case as safetensors, from a seed.

    python3 make_inputs.py --out out/inputs [--seed 0] [--case C1 --case C4]

Both peers start from these files, so that their losses can be compared before anything is timed. Labels come from a
random linear teacher: the loss falls, and a wrong gradient shows.
"""

import argparse
import pathlib

import numpy as np
from safetensors.numpy import save_file

from cases import ALL, Case


def initial_weights(case: Case, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """PyTorch's default initialization in distribution: uniform in ±1/√fan_in, biases with their layer's fan-in."""
    weights: dict[str, np.ndarray] = {}
    for name, shape in case.weights.items():
        if name.endswith("num_batches_tracked"):
            weights[name] = np.array(0, np.int64)
        elif name.endswith("running_mean"):
            weights[name] = np.zeros(shape, np.float32)
        elif name.endswith("running_var") or (name.endswith(".weight") and len(shape) == 1):
            weights[name] = np.ones(shape, np.float32)
        else:
            bound = fan_in(case, name) ** -0.5
            weights[name] = rng.uniform(-bound, bound, shape).astype(np.float32)
    return weights


def fan_in(case: Case, name: str) -> int:
    """Of a weight, the product of all dimensions but the first; a bias has that of its weight."""
    shape = case.weights.get(name.replace("bias", "weight"), case.weights[name])
    return int(np.prod(shape[1:])) if len(shape) > 1 else int(shape[0])


def batches(case: Case, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Normal inputs and, for a classifier, labels in 0..classes as i64; tokens are followed by their successors."""
    if case.tokens:
        places = rng.integers(0, case.tokens, (*case.x[:-1], case.x[-1] + 1))
        # Every second token is a function of the one before, so that there is something to learn.
        places[..., 1::2] = (places[..., 0::2][..., : places[..., 1::2].shape[-1]] * 7 + 3) % case.tokens
        return {"x": places[..., :-1].astype(np.int64), "y": places[..., 1:].astype(np.int64)}
    x = rng.standard_normal(case.x, dtype=np.float32)
    data = {"x": x}
    if case.classes:
        teacher = rng.standard_normal((int(np.prod(case.x[2:])), case.classes), dtype=np.float32)
        data["y"] = (x.reshape(*case.x[:2], -1) @ teacher).argmax(-1).astype(np.int64)
    return data


def write_inputs(name: str, out: pathlib.Path, seed: int = 0) -> tuple[pathlib.Path, pathlib.Path]:
    """Writes both files of one case and returns their paths (weights, data)."""
    case = ALL[name]
    rng = np.random.default_rng([seed, *name.encode()])
    if case.kind == "ops":  # one element each, away from relu's kink
        weights, data = {"w": np.array([1.5], np.float32)}, {"x": np.array([0.5], np.float32)}
    else:
        weights, data = initial_weights(case, rng), batches(case, rng)
    out.mkdir(parents=True, exist_ok=True)
    about = {"case": name, "seed": str(seed)}
    paths = out / f"{name}-weights.safetensors", out / f"{name}-data.safetensors"
    for path, tensors in zip(paths, (weights, data), strict=True):
        save_file(tensors, path, metadata=about)
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent / "out/inputs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", action="append", choices=list(ALL), help="default: all")
    args = parser.parse_args()
    for name in args.case or ALL:
        for path in write_inputs(name, args.out, args.seed):
            print(path)


if __name__ == "__main__":
    main()
