#!/usr/bin/env python3
"""Measures Gradus against PyTorch, Burn and candle: one command, one table.

    python3 run.py                       # every case, two threads; builds the peers first, installs PyTorch if need be
    python3 run.py --case C1 --case C2 --rounds 5
    python3 run.py --without burn --without candle
    python3 run.py --torch-only          # PyTorch's figures alone
    python3 run.py --device wgpu:0       # Gradus against Burn on a Vulkan device

For each case: compare the first ten losses of all peers (nothing is timed when they differ), find each one's fastest
variant, then run the peers in turn, A B C A B C, each run in a process of its own. A run during which other processes used
more than 2 % of the CPU is thrown away and tried again; when it stays so, the case is refused. README.md states the
rules.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import time

from cases import ALL, CASES, GPU_CASES
from machine import OtherWork, describe
from peers import PEERS, environment
from python_env import ensure
from table import summarize, table

HERE = pathlib.Path(__file__).resolve().parent
RTOL = 1e-4


class Refused(Exception):
    """A case that cannot be reported, and why."""


class Failed(Refused):
    """A peer that failed, or whose losses are not the expected ones."""


class Bench:
    """Runs peers on one case's files, and judges whether the machine was idle beside them."""

    def __init__(self, name: str, args: argparse.Namespace, commands: dict[str, list[str]]) -> None:
        from make_inputs import write_inputs  # needs NumPy, which is there once `ensure` has returned

        self.name, self.case, self.args, self.commands = name, ALL[name], args, commands
        self.weights, self.data = write_inputs(name, args.out / "inputs")

    def once(self, peer: str, steps: int, variant: str) -> tuple[dict, float]:
        """One run of one peer: its JSON, and the share of the CPU that other processes used meanwhile."""
        command = [*self.commands[peer], "--case", self.name, "--weights", str(self.weights), "--data", str(self.data)]
        command += ["--threads", str(self.args.threads), "--steps", str(steps)]
        if peer != "torch":
            command += ["--warmup", str(self.case.warmup), "--device", self.args.device]
        command += ["--variant", variant] if variant else []
        others, started = OtherWork(), time.time()
        done = subprocess.run(command, env=environment(self.args.threads), capture_output=True, text=True)
        share = others.share()
        if done.returncode:
            raise Failed(f"{peer} failed with exit code {done.returncode}: {done.stderr.strip()[-2000:]}")
        try:
            result = json.loads(done.stdout.strip().splitlines()[-1])
            result["start_s"] = result["first_step_at"] - started
        except (IndexError, KeyError, ValueError) as error:
            raise Failed(f"{peer} printed no result ({error!r}): {done.stdout[-500:]!r}") from error
        return result, share

    def quiet(self, peer: str, steps: int, variant: str) -> dict:
        """A run during which the machine was otherwise idle, or the report of why there is none."""
        shares = []
        for _ in range(1 + self.args.retries):
            self.await_idle()
            result, share = self.once(peer, steps, variant)
            result["other_cpu"] = share
            if share <= self.args.max_other or self.args.allow_busy:
                return result
            shares.append(f"{share:.1%}")
        limit = f"{self.args.max_other:.0%}"
        raise Refused(f"other processes used {', '.join(shares)} of the CPU during {peer}'s runs (limit {limit})")

    def await_idle(self) -> None:
        """Waits up to `--wait` seconds for a second in which nothing else runs."""
        deadline = time.monotonic() + self.args.wait
        while True:
            others = OtherWork()
            time.sleep(1.0)
            if (share := others.share()) <= self.args.max_other or self.args.allow_busy:
                return
            if time.monotonic() >= deadline:
                raise Refused(f"the machine is busy: other processes use {share:.1%} of the CPU")

    def fastest_variant(self, peer: str, steps: int, expected: list[float]) -> tuple[str, dict]:
        """A peer's fastest variant whose losses are the expected ones, and what each one tried gave."""
        variants = PEERS[peer].variants(self.case, self.args.device)
        if peer == "torch" and self.args.variant != "best":
            variants = (self.args.variant,)
        if len(variants) == 1:
            difference(self.once(peer, 2, variants[0])[0]["losses"], expected, peer)
            return variants[0], {}
        tried: dict[str, dict | str] = {}
        medians: dict[str, float] = {}
        for variant in variants:
            try:
                result = self.quiet(peer, steps, variant)
                difference(result["losses"], expected, f"{peer} {variant}")
            except Failed as reason:  # the peer cannot do that here: not its best, and the report says why
                tried[variant] = str(reason)
                print(f"{self.name}: {peer} {variant}: {reason}", file=sys.stderr)
                continue
            tried[variant] = {"first_step_took_s": result.get("first_step_took_s"), "rows": result["rows"]}
            medians[variant] = sum(row["median_us"] for row in result["rows"].values())
            print(f"{self.name}: {peer} {variant}: {medians[variant]:.1f} µs", file=sys.stderr)
        if not medians:
            raise Failed(f"no variant runs: {tried}")
        return min(medians, key=medians.__getitem__), tried

    def run(self) -> dict:
        """The report of the case: each peer's variant, runs and rows, or why a rival is absent."""
        steps = self.args.steps or self.case.steps
        expected = self.once("torch", 2, "eager")[0]["losses"]
        variants: dict[str, str] = {}
        report: dict = {"case": self.name, "what": self.case.what, "variants": variants, "tried": {}, "absent": {}}
        for peer in self.args.peers:
            if lacking := dict(PEERS[peer].lacks).get(self.name):
                report["absent"][peer] = lacking
                continue
            try:
                variants[peer], report["tried"][peer] = self.fastest_variant(peer, max(steps // 2, min(steps, 20)), expected)
            except Failed as reason:  # a rival that fails is left out in sight; without PyTorch or Gradus there is no row
                if peer in ("torch", "gradus"):
                    raise
                report["absent"][peer] = str(reason)
        runs: dict[str, list[dict]] = {peer: [] for peer in variants}
        for _ in range(self.args.rounds):
            for peer, variant in variants.items():
                runs[peer].append(self.quiet(peer, steps, variant))
        report["runs"] = runs
        report["loss_difference"] = {
            peer: difference(rs[0]["losses"], expected, peer) for peer, rs in runs.items() if peer != "torch"
        }
        rows = runs["gradus" if "gradus" in runs else self.args.peers[0]][0]["rows"]
        report["rows"] = {row: summarize(runs, row, self.case.targets.get(row)) for row in rows}
        return report


def difference(losses: list[float], expected: list[float], whose: str) -> float:
    """The largest relative difference of two lists of losses; fails when it is above RTOL, or not a number."""
    if len(losses) != len(expected):
        raise Failed(f"{whose} printed {len(losses)} losses, PyTorch {len(expected)}")
    relative = [abs(a - b) / max(abs(b), 1e-30) for a, b in zip(losses, expected, strict=True)]
    if not all(r <= RTOL for r in relative):  # so that a NaN fails too
        raise Failed(f"the losses differ beyond {RTOL:g}: {whose} {losses}, PyTorch {expected}")
    return max(relative)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", action="append", choices=list(ALL), help="default: all of the device")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3, help="how often each peer runs, in turn")
    parser.add_argument("--steps", type=int, help="timed steps a run (default: the case's own)")
    parser.add_argument("--variant", default="best", help="PyTorch's variant (default: the fastest here)")
    for peer in ("gradus", "burn", "candle"):
        parser.add_argument(f"--{peer}", metavar="PATH", help=f"a built {peer}_peer (default: cargo builds it)")
    parser.add_argument("--without", action="append", default=[], choices=list(PEERS), help="leaves a peer out")
    parser.add_argument("--torch-only", action="store_true")
    parser.add_argument("--device", default="cpu", help="wgpu:0: Gradus and Burn on a Vulkan device, cases G4 and G6")
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "out", help="where table.md and report.json go")
    parser.add_argument(
        "--python-env",
        type=pathlib.Path,
        metavar="DIR",
        help="where PyTorch and NumPy are installed when this Python lacks them (default: ~/.cache/gradus-peers/…)",
    )
    parser.add_argument("--max-other", type=float, default=0.02, help="share of the CPU that others may use")
    parser.add_argument("--wait", type=float, default=0.0, help="seconds to wait for an idle machine before each run")
    parser.add_argument("--retries", type=int, default=3, help="how often a disturbed run is tried again")
    parser.add_argument("--allow-busy", action="store_true", help="report all the same; the table says so")
    args = parser.parse_args()
    args.out = args.out.resolve()
    there = list(PEERS) if args.device == "cpu" else ["gradus", "burn"]
    args.peers = ["torch"] if args.torch_only else [peer for peer in there if peer not in args.without]
    if not args.peers:
        parser.error("no peer is left")
    return args


def main() -> None:
    args = parse()
    ensure(args.python_env)
    args.out.mkdir(parents=True, exist_ok=True)
    built = {peer: [str(pathlib.Path(path).resolve())] for peer in PEERS if (path := getattr(args, peer, None))}
    # PyTorch always runs: its losses are the expected ones.
    commands = {peer: built.get(peer) or PEERS[peer].build(args.device) for peer in {"torch", *args.peers}}
    reports = []
    for name in args.case or (CASES if args.device == "cpu" else GPU_CASES):
        try:
            reports.append(Bench(name, args, commands).run())
        except Refused as reason:
            reports.append({"case": name, "refused": str(reason)})
            print(f"{name}: refused: {reason}", file=sys.stderr)
    command = " ".join(["run.py", *sys.argv[1:]])
    about = describe() | {"device": args.device, "threads": args.threads, "rounds": args.rounds, "command": command}
    versions = {r["peer"]: r["version"] for rep in reports for rs in rep.get("runs", {}).values() for r in rs}
    about |= {f"{peer} version": version for peer, version in versions.items()}
    if args.allow_busy:
        about["WARNING"] = "the machine was allowed to be busy: these figures are not a measurement"
    text = table(reports, about, args.peers)
    (args.out / "table.md").write_text(text)
    (args.out / "report.json").write_text(json.dumps({"about": about, "reports": reports}, indent=1) + "\n")
    print(text)
    missed = [r["case"] for r in reports if "refused" in r]
    if missed:
        sys.exit(f"run: not reported: {', '.join(missed)}")


if __name__ == "__main__":
    main()
