"""Who takes part: each peer's program, how it is built, its variants of a case, and the cases that it lacks."""

import json
import os
import pathlib
import subprocess
import sys
from dataclasses import dataclass

from cases import Case

HERE = pathlib.Path(__file__).resolve().parent


@dataclass(frozen=True)
class Peer:
    name: str  # as it calls itself in its JSON
    title: str
    folder: str = ""  # of its Cargo workspace; PyTorch has none
    package: str = ""
    lacks: tuple[tuple[str, str], ...] = ()  # case -> what it has not

    def variants(self, case: Case, device: str) -> tuple[str, ...]:
        """What it may run a case as; the fastest stands for it."""
        if self.name == "torch":
            return case.variants
        if device != "cpu":
            return ("",)
        if self.name == "gradus" and case.replayed:
            return ("eager", "guarded", "unchecked")
        return ("flex", "ndarray") if self.name == "burn" else ("",)

    def build(self, device: str) -> list[str]:
        """Builds its program in release mode and returns the command that runs it."""
        if self.name == "torch":
            return [sys.executable, str(HERE / "torch_peer.py")]
        binary, folder = f"{self.name}_peer", HERE / self.folder
        command = ["cargo", "build", "--release", "--locked", "-p", self.package, "--bin", binary]
        command += [] if device == "cpu" else ["--features", device.split(":")[0]]
        done = subprocess.run(
            [*command, "--message-format=json-render-diagnostics"], cwd=folder, stdout=subprocess.PIPE, text=True
        )
        if done.returncode:
            sys.exit(f"run: `{' '.join(command)}` in {folder} failed with exit code {done.returncode}")
        messages = (json.loads(line) for line in done.stdout.splitlines() if line.startswith("{"))
        programs = [m["executable"] for m in messages if m.get("executable") and m["target"]["name"] == binary]
        if not programs:
            sys.exit(f"run: cargo built no program named {binary}")
        return [programs[-1]]


PEERS = {
    "torch": Peer("torch", "PyTorch"),
    "gradus": Peer("gradus", "Gradus", ".", "gradus-peers"),
    "burn": Peer("burn", "Burn", "rivals", "burn-peer", (("C9c", "the same as C9"),)),
    "candle": Peer(
        "candle",
        "candle",
        "rivals",
        "candle-peer",
        (("C5", "its SGD has no momentum"), ("C9c", "the same as C9")),
    ),
}


def environment(threads: int) -> dict[str, str]:
    """What tells each peer's pools how many threads they have."""
    names = ("OMP_NUM_THREADS", "GRADUS_THREADS", "RAYON_NUM_THREADS", "MATMUL_NUM_THREADS")
    return {**os.environ, **{name: str(threads) for name in names}}
