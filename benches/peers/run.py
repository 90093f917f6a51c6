#!/usr/bin/env python3
"""Measures Gradus against PyTorch: one command, one table.

    python3 run.py                       # every case, two threads; builds the Gradus peer first
    python3 run.py --case C1 --case C2 --rounds 5
    python3 run.py --torch-only          # PyTorch's figures alone

For each case: compare the first ten losses of both peers (nothing is timed when they differ), find PyTorch's fastest
variant, then run the peers in turn, A B A B, each run in a process of its own. A run during which other processes used
more than 2 % of the CPU is thrown away and tried again; when it stays so, the case is refused. README.md states the
rules.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

from cases import CASES
from machine import OtherWork, describe
from make_inputs import write_inputs

HERE = pathlib.Path(__file__).resolve().parent
RTOL = 1e-4


class Refused(Exception):
    """A case that cannot be reported, and why."""


class Failed(Refused):
    """A peer that failed, or whose losses are not the expected ones."""


def build_gradus() -> pathlib.Path:
    """Builds the Gradus peer in release mode and returns the path of its program."""
    command = ["cargo", "build", "--release", "-p", "gradus-peers", "--bin", "gradus_peer"]
    done = subprocess.run(
        [*command, "--message-format=json-render-diagnostics"], cwd=HERE, stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        sys.exit(f"run: `{' '.join(command)}` in {HERE} failed with exit code {done.returncode}")
    messages = (json.loads(line) for line in done.stdout.splitlines() if line.startswith("{"))
    programs = [m["executable"] for m in messages if m.get("executable") and m["target"]["name"] == "gradus_peer"]
    if not programs:
        sys.exit("run: cargo built no program named gradus_peer")
    return pathlib.Path(programs[-1])


class Bench:
    """Runs peers on one case's files, and judges whether the machine was idle beside them."""

    def __init__(self, name: str, args: argparse.Namespace, gradus: pathlib.Path | None) -> None:
        self.name, self.args, self.gradus = name, args, gradus
        self.weights, self.data = write_inputs(name, args.out / "inputs")

    def once(self, peer: str, steps: int, variant: str) -> tuple[dict, float]:
        """One run of one peer: its JSON, and the share of the CPU that other processes used meanwhile."""
        command = [sys.executable, str(HERE / "torch_peer.py")] if peer == "torch" else [str(self.gradus)]
        command += ["--case", self.name, "--weights", str(self.weights), "--data", str(self.data)]
        command += ["--threads", str(self.args.threads), "--steps", str(steps)]
        command += ["--variant", variant] if peer == "torch" else ["--warmup", str(CASES[self.name].warmup)]
        threads = {"OMP_NUM_THREADS": str(self.args.threads), "GRADUS_THREADS": str(self.args.threads)}
        others, started = OtherWork(), time.time()
        done = subprocess.run(command, env={**os.environ, **threads}, capture_output=True, text=True)
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

    def fastest_variant(self, steps: int, expected: list[float]) -> tuple[str, dict]:
        """PyTorch's fastest variant whose losses are those of eager, and what each one tried gave."""
        tried: dict[str, dict | str] = {}
        medians: dict[str, float] = {}
        for variant in CASES[self.name].variants:
            try:
                result = self.quiet("torch", steps, variant)
                difference(result["losses"], expected, variant)
            except Failed as reason:  # PyTorch cannot build it here: not its best, and the report says why
                tried[variant] = str(reason)
                continue
            tried[variant] = {"first_step_took_s": result.get("first_step_took_s"), "rows": result["rows"]}
            medians[variant] = sum(row["median_us"] for row in result["rows"].values())
            print(f"{self.name}: {variant}: {medians[variant]:.1f} µs", file=sys.stderr)
        if not medians:
            raise Refused(f"no variant runs: {tried}")
        return min(medians, key=medians.__getitem__), tried

    def run(self) -> dict:
        case, args = CASES[self.name], self.args
        steps = args.steps or case.steps
        peers = ["torch"] if args.torch_only else ["torch", "gradus"]
        report: dict = {"case": self.name, "what": case.what}
        expected = self.once("torch", 2, "eager")[0]["losses"]
        if not args.torch_only:
            report["loss_difference"] = difference(self.once("gradus", 2, "")[0]["losses"], expected, "gradus")
        variant: str = args.variant
        tried: dict[str, dict | str] = {}
        if variant == "best":
            variant, tried = self.fastest_variant(max(steps // 2, min(steps, 20)), expected)
        report |= {"variant": variant, "tried": tried}
        runs: dict[str, list[dict]] = {peer: [] for peer in peers}
        for _ in range(args.rounds):
            for peer in peers:
                runs[peer].append(self.quiet(peer, steps, variant))
        report["runs"] = runs
        report["rows"] = {row: summarize(runs, row, case.targets.get(row)) for row in runs["torch"][0]["rows"]}
        return report


def difference(losses: list[float], expected: list[float], whose: str) -> float:
    """The largest relative difference of two lists of losses; fails when it is above RTOL, or not a number."""
    if len(losses) != len(expected):
        raise Failed(f"{whose} printed {len(losses)} losses, PyTorch {len(expected)}")
    relative = [abs(a - b) / max(abs(b), 1e-30) for a, b in zip(losses, expected, strict=True)]
    if not all(r <= RTOL for r in relative):  # so that a NaN fails too
        raise Failed(f"the losses differ beyond {RTOL:g}: {whose} {losses}, PyTorch {expected}")
    return max(relative)


def summarize(runs: dict[str, list[dict]], row: str, target: tuple[str, float] | None) -> dict:
    """Medians over the rounds of each peer's median, p10 and p90; the ratio PyTorch / Gradus; is the target met?"""
    cuts = ("median_us", "p10_us", "p90_us")
    of = {p: {k: statistics.median(r["rows"][row][k] for r in rs) for k in cuts} for p, rs in runs.items()}
    summary: dict = {**of, "target": target}
    if "gradus" in of:
        summary["ratio"] = of["torch"]["median_us"] / of["gradus"]["median_us"]
        if target:
            kind, bound = target
            summary["met"] = summary["ratio"] >= bound if kind == "ratio" else of["gradus"]["median_us"] <= bound
    return summary


def micro(cuts: dict | None) -> str:
    if cuts is None:
        return "–"
    digits = 3 if cuts["median_us"] < 10 else 1
    return f"{cuts['median_us']:.{digits}f} [{cuts['p10_us']:.{digits}f}–{cuts['p90_us']:.{digits}f}]"


def table(reports: list[dict], about: dict) -> str:
    lines = [f"{key}: {value}  " for key, value in about.items()]
    lines += ["", "Microseconds a step: median [p10–p90]; start: process start to first step;",
              "MiB: peak resident memory, beyond what it was when the inputs were loaded.", ""]
    head = ["case", "row", "PyTorch", "its variant", "Gradus", "PyTorch / Gradus", "target", "start s", "MiB"]
    lines += ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for report in reports:
        if "refused" in report:
            lines.append(f"| {report['case']} | refused: {report['refused']} |" + " |" * (len(head) - 2))
            continue
        for row, s in report["rows"].items():
            both = [report["runs"][p] for p in report["runs"]]
            start = " / ".join(f"{statistics.median(r['start_s'] for r in rs):.3f}" for rs in both)
            memory = " / ".join(f"{max(r['peak_rss_kib'] - r['loaded_rss_kib'] for r in rs) / 1024:.0f}" for rs in both)
            ratio = f"**{s['ratio']:.2f}**" if "ratio" in s else "–"
            target = "–"
            if s["target"]:
                kind, bound = s["target"]
                target = (f"≥ {bound:g}×" if kind == "ratio" else f"≤ {bound:g} µs") + (
                    "" if "met" not in s else " met" if s["met"] else " MISSED"
                )
            cells = [report["case"], row, micro(s["torch"]), report["variant"], micro(s.get("gradus"))]
            lines.append("| " + " | ".join([*cells, ratio, target, start, memory]) + " |")
    return "\n".join(lines) + "\n"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", action="append", choices=list(CASES), help="default: all")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3, help="how often each peer runs, in turn")
    parser.add_argument("--steps", type=int, help="timed steps a run (default: the case's own)")
    parser.add_argument("--variant", default="best", help="PyTorch's variant (default: the fastest here)")
    parser.add_argument("--gradus", type=pathlib.Path, help="a built gradus_peer (default: cargo builds it)")
    parser.add_argument("--torch-only", action="store_true")
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "out", help="where table.md and report.json go")
    parser.add_argument("--max-other", type=float, default=0.02, help="share of the CPU that others may use")
    parser.add_argument("--wait", type=float, default=0.0, help="seconds to wait for an idle machine before each run")
    parser.add_argument("--retries", type=int, default=3, help="how often a disturbed run is tried again")
    parser.add_argument("--allow-busy", action="store_true", help="report all the same; the table says so")
    args = parser.parse_args()
    args.out = args.out.resolve()
    return args


def main() -> None:
    args = parse()
    gradus = None if args.torch_only else args.gradus or build_gradus()
    reports = []
    for name in args.case or CASES:
        try:
            reports.append(Bench(name, args, gradus).run())
        except Refused as reason:
            reports.append({"case": name, "refused": str(reason)})
    command = " ".join(["run.py", *sys.argv[1:]])
    about = describe() | {"threads": args.threads, "rounds": args.rounds, "command": command}
    versions = {r["peer"]: r["version"] for rep in reports for rs in rep.get("runs", {}).values() for r in rs}
    about |= {f"{peer} version": version for peer, version in versions.items()}
    if args.allow_busy:
        about["WARNING"] = "the machine was allowed to be busy: these figures are not a measurement"
    text = table(reports, about)
    (args.out / "table.md").write_text(text)
    (args.out / "report.json").write_text(json.dumps({"about": about, "reports": reports}, indent=1) + "\n")
    print(text)
    missed = [r["case"] for r in reports if "refused" in r]
    if missed:
        sys.exit(f"run: not reported: {', '.join(missed)}")


if __name__ == "__main__":
    main()
