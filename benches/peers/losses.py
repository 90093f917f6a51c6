#!/usr/bin/env python3
"""Checks a peer's first ten losses of every case against those that PyTorch gave, without PyTorch.

    python3 losses.py -- cargo run --release --quiet --bin gradus_peer --
    python3 losses.py --record        # writes losses.json again, with the PyTorch that is installed

losses.json also holds a hash of each case's inputs: when NumPy's random streams change, that is said, and not taken for
a wrong gradient.
"""

import argparse
import hashlib
import json
import pathlib
import subprocess
import sys

from safetensors.numpy import load_file

from cases import CASES
from make_inputs import write_inputs

HERE = pathlib.Path(__file__).resolve().parent
RECORD = HERE / "losses.json"
RTOL = 1e-4


def run(command: list[str], name: str, paths: tuple[pathlib.Path, pathlib.Path]) -> dict:
    arguments = ["--case", name, "--weights", str(paths[0]), "--data", str(paths[1]), "--threads", "2", "--steps", "2"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"losses: {name}: exit code {done.returncode}: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def digest(paths: tuple[pathlib.Path, pathlib.Path]) -> str:
    """Of the tensors' bytes by name; the files' own bytes vary with the order of their headers."""
    tensors = {name: tensor for path in paths for name, tensor in load_file(path).items()}
    return hashlib.sha256(b"".join(tensors[name].tobytes() for name in sorted(tensors))).hexdigest()


def checked() -> list[str]:
    """The cases that are small enough; the large ones have the models and kinds of others, and run.py checks them."""
    return [name for name, case in CASES.items() if not case.large]


def record(out: pathlib.Path) -> None:
    recorded = {}
    for name in checked():
        paths = write_inputs(name, out)
        result = run([sys.executable, str(HERE / "torch_peer.py")], name, paths)
        recorded[name] = {"version": result["version"], "inputs": digest(paths), "losses": result["losses"]}
    RECORD.write_text(json.dumps(recorded, indent=1) + "\n")


def compare(command: list[str], out: pathlib.Path) -> None:
    recorded = json.loads(RECORD.read_text())
    for name in checked():
        paths, expected = write_inputs(name, out), recorded[name]
        if digest(paths) != expected["inputs"]:
            sys.exit(f"losses: {name}: this NumPy draws other inputs than the recorded ones: run --record again")
        losses = run(command, name, paths)["losses"]
        if len(losses) != len(expected["losses"]):
            sys.exit(f"losses: {name}: {len(losses)} losses, not {len(expected['losses'])}")
        relative = [abs(a - b) / abs(b) for a, b in zip(losses, expected["losses"], strict=True)]
        if not all(r <= RTOL for r in relative):  # so that a NaN fails too
            sys.exit(f"losses: {name}: {losses} differ from PyTorch's {expected['losses']} beyond {RTOL:g}")
        print(f"{name}: {len(losses)} losses agree with PyTorch {expected['version']} within {max(relative):.1e}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "out/inputs", help="where the inputs are written")
    parser.add_argument("--record", action="store_true", help="record PyTorch's losses instead")
    parser.add_argument("command", nargs="*", help="the peer's command, after --")
    args = parser.parse_args()
    if args.record == bool(args.command):
        parser.error("give either --record or a peer's command after --")
    if args.record:
        record(args.out)
    else:
        compare(args.command, args.out)


if __name__ == "__main__":
    main()
