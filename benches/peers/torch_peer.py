#!/usr/bin/env python3
"""The PyTorch side of the comparison: one case, its first ten losses, then its timed steps, as one line of JSON.

    python3 torch_peer.py --case C1 --weights FILE --data FILE --threads 2 --variant fused --steps 5000

A variant is `eager` or flags joined by `+`: fused (the optimizer's one-kernel form), channels_last, compile (forward,
loss and backward through torch.compile), compile_opt (the optimizer's step through torch.compile), safetensors (files).
run.py finds the fastest. README.md states the contract.
"""

import argparse
import json
import os
import resource
import sys
import time

os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # no worker processes that outlive the compilation

import torch
from safetensors.torch import load_file

from cases import ALL
from torch_pieces import files, head, matmul, ops, residual, update
from torch_train import epoch, train

KINDS = {
    "train": train,
    "epoch": epoch,
    "matmul": matmul,
    "ops": ops,
    "update": update,
    "residual": residual,
    "head": head,
    "files": files,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", required=True, choices=list(ALL))
    parser.add_argument("--weights", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--variant", default="eager")
    parser.add_argument("--steps", type=int, help="timed steps (default: the case's own)")
    args = parser.parse_args()
    case = ALL[args.case]
    steps = case.steps if args.steps is None else args.steps
    known = {"eager", "fused", "channels_last", "compile", "compile_opt", "safetensors"}
    if unknown := set(args.variant.split("+")) - known:
        sys.exit(f"torch_peer: unknown variant {sorted(unknown)}: give one of {sorted(known)}, or some joined by '+'")
    if steps < 2 or args.threads < 1:
        sys.exit(f"torch_peer: --steps {steps} must be at least 2 and --threads {args.threads} at least 1")
    torch.set_num_threads(args.threads)
    weights, data = load_file(args.weights), load_file(args.data)
    loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    before = time.time()
    result = KINDS[case.kind](case, weights, data, args.variant, steps)
    result["first_step_took_s"] = result["first_step_at"] - before
    about = {"peer": "torch", "version": torch.__version__, "case": args.case, "threads": args.threads, "steps": steps}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({**about, **result, "loaded_rss_kib": loaded, "peak_rss_kib": peak}))


if __name__ == "__main__":
    main()
