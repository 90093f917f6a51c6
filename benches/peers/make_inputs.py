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

from cases import CASES, Case


def initial_weights(case: Case, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """PyTorch's default initialization in distribution: uniform in ±1/√fan_in, biases with their layer's fan-in."""
    weights: dict[str, np.ndarray] = {}
    for name, shape in case.weights.items():
        if name.endswith(".bias"):
            fan_in = int(np.prod(case.weights[name.replace(".bias", ".weight")][1:]))
        else:
            fan_in = int(np.prod(shape[1:]))
        bound = fan_in**-0.5
        weights[name] = rng.uniform(-bound, bound, shape).astype(np.float32)
    return weights


def batches(case: Case, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Normal inputs and, for a classifier, labels in 0..classes as i64 of shape [batches, batch]."""
    x = rng.standard_normal(case.x, dtype=np.float32)
    data = {"x": x}
    if case.classes:
        teacher = rng.standard_normal((int(np.prod(case.x[2:])), case.classes), dtype=np.float32)
        data["y"] = (x.reshape(*case.x[:2], -1) @ teacher).argmax(-1).astype(np.int64)
    return data


def write_inputs(name: str, out: pathlib.Path, seed: int = 0) -> tuple[pathlib.Path, pathlib.Path]:
    """Writes both files of one case and returns their paths (weights, data)."""
    case = CASES[name]
    rng = np.random.default_rng([seed, list(CASES).index(name)])
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
    parser.add_argument("--case", action="append", choices=list(CASES), help="default: all")
    args = parser.parse_args()
    for name in args.case or CASES:
        for path in write_inputs(name, args.out, args.seed):
            print(path)


if __name__ == "__main__":
    main()
