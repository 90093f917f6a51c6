"""What the runs of a case say: medians, ratios, targets; and the table of all cases."""

import math
import statistics

from peers import PEERS

CUTS = ("median_us", "p10_us", "p90_us")
# Over these the geometric means are taken: C9c is C9 in another form of PyTorch's, matmul one operation.
SUITE = [f"C{i}" for i in range(1, 15)]


def summarize(runs: dict[str, list[dict]], row: str, target: tuple[str, float] | None) -> dict:
    """Medians over the rounds of each peer's median, p10 and p90; each one's time over Gradus's; is the target met?"""
    of = {
        peer: {cut: statistics.median(r["rows"][row][cut] for r in rs) for cut in CUTS}
        for peer, rs in runs.items()
        if row in rs[0]["rows"]
    }
    summary: dict = {**of, "target": target}
    if "gradus" in of:
        own = of["gradus"]["median_us"]
        summary["ratios"] = {peer: cuts["median_us"] / own for peer, cuts in of.items() if peer != "gradus"}
        if target:
            kind, bound = target
            value = summary["ratios"].get("torch") if kind == "ratio" else own
            if value is not None:
                summary["met"] = value >= bound if kind == "ratio" else value <= bound
    return summary


def micro(cuts: dict | None) -> str:
    if cuts is None:
        return "–"
    digits = 3 if cuts["median_us"] < 10 else 1
    return f"{cuts['median_us']:.{digits}f} [{cuts['p10_us']:.{digits}f}–{cuts['p90_us']:.{digits}f}]"


def target_of(summary: dict) -> str:
    if not summary["target"]:
        return "–"
    kind, bound = summary["target"]
    verdict = "" if "met" not in summary else " met" if summary["met"] else " MISSED"
    return (f"≥ {bound:g}×" if kind == "ratio" else f"≤ {bound:g} µs") + verdict


def cells(report: dict, row: str, peers: list[str]) -> list[str]:
    """One row of a case: times, variants, ratios, then starts and memory of all peers."""
    summary = report["rows"][row]
    line = [report["case"], row]
    for peer in peers:
        line += [micro(summary.get(peer)), report["variants"].get(peer) or "–"]
    for peer in peers:
        if peer != "gradus":
            ratio = summary.get("ratios", {}).get(peer)
            line.append(f"**{ratio:.2f}**" if ratio else "–")
    runs = [report["runs"].get(peer, []) for peer in peers]
    starts = [f"{statistics.median(r['start_s'] for r in rs):.3f}" if rs else "–" for rs in runs]
    grown = [max((r["peak_rss_kib"] - r["loaded_rss_kib"] for r in rs), default=None) for rs in runs]
    memory = ["–" if kib is None else f"{kib / 1024:.0f}" for kib in grown]
    return [*line, target_of(summary), " / ".join(starts), " / ".join(memory)]


def means(reports: list[dict], peers: list[str]) -> list[str]:
    """The geometric mean of each peer's ratios: of PyTorch's over C1 to C12, of a rival's over the rows that it runs."""
    lines = []
    for peer in peers:
        last = 12 if peer == "torch" else 14
        found = [
            (f"{report['case']} {row}", summary["ratios"][peer])
            for report in reports
            if report["case"] in SUITE[:last] or report["case"].startswith("G")
            for row, summary in report.get("rows", {}).items()
            if peer in summary.get("ratios", {})
        ]
        if found:
            mean = math.exp(statistics.fmean(math.log(ratio) for _, ratio in found))
            least = min(found, key=lambda pair: pair[1])
            lines.append(
                f"{PEERS[peer].title} / Gradus: geometric mean **{mean:.2f}** over {len(found)} rows, "
                f"least {least[1]:.2f} ({least[0]})  "
            )
    return lines


def tried_row(report: dict, row: str) -> list[str]:
    """PyTorch's variants of one row: eager ones, then compiled ones, each by time; the best of both kinds in bold."""
    own = report["rows"][row].get("gradus", {}).get("median_us")
    ran = {variant: gave for variant, gave in report["tried"]["torch"].items() if not isinstance(gave, str)}
    lines = []
    for kind, compiled in (("eager", False), ("compile", True)):
        group = [variant for variant in ran if ("compile" in variant) == compiled]
        group.sort(key=lambda variant: ran[variant]["rows"][row]["median_us"])
        for variant in group:
            cuts, seconds = ran[variant]["rows"][row], ran[variant]["first_step_took_s"]
            ratio = f"{cuts['median_us'] / own:.2f}" if own else "–"
            best = variant == group[0]
            line = [report["case"], row, kind, variant, micro(cuts), f"**{ratio}**" if best and own else ratio]
            lines.append([*line, "–" if seconds is None else f"{seconds:.2f}"])
    return ["| " + " | ".join(line) + " |" for line in lines]


def brief(reason: str) -> str:
    """What a cell can hold of a failure: the last line (of a traceback, the error itself); report.json has all of it."""
    last = reason.strip().splitlines()[-1].replace("|", "\\|")
    return last if len(last) <= 160 else last[:159] + "…"


def tried_table(reports: list[dict]) -> list[str]:
    """Each of PyTorch's variants beside Gradus, where more than one was tried: its eager best and its compiler apart."""
    lines = []
    for report in reports:
        if tried := report.get("tried", {}).get("torch"):
            for row in report["rows"]:
                lines += tried_row(report, row)
            for variant, reason in tried.items():
                if isinstance(reason, str):
                    kind = "compile" if "compile" in variant else "eager"
                    lines.append(f"| {report['case']} | – | {kind} | {variant} | failed: {brief(reason)} | – | – |")
    if not lines:
        return []
    head = ["case", "row", "kind", "variant", "PyTorch", "PyTorch / Gradus", "first step s"]
    return [
        "PyTorch's variants: microseconds a step in the run that chose among them, over Gradus's median above (bold: the best",
        "eager and the best compiled one); first step: from inputs loaded to first loss, compilation included (less where the",
        "compiler's cache on disk has a part of it).",
        "",
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
        *lines,
    ]


def table(reports: list[dict], about: dict, peers: list[str]) -> str:
    titles = [PEERS[peer].title for peer in peers]
    lines = [f"{key}: {value}  " for key, value in about.items()]
    lines += ["", "Microseconds a step: median [p10–p90], each peer in its fastest variant; start: process start to first step;"]
    lines += [f"MiB: peak resident memory, beyond what it was when the inputs were loaded; both in the order {' / '.join(titles)}.", ""]
    head = ["case", "row"]
    for title in titles:
        head += [title, "variant"]
    head += [f"{PEERS[peer].title} / Gradus" for peer in peers if peer != "gradus"] + ["target", "start s", "MiB"]
    lines += ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for report in reports:
        if "refused" in report:
            lines.append(f"| {report['case']} | refused: {report['refused']} |" + " |" * (len(head) - 2))
            continue
        lines += ["| " + " | ".join(cells(report, row, peers)) + " |" for row in report["rows"]]
    lines += ["", *means(reports, peers)]
    for report in reports:
        for peer, reason in report.get("absent", {}).items():
            lines.append(f"{report['case']} without {PEERS[peer].title}: {reason}  ")
    if variants := tried_table(reports):
        lines += ["", *variants]
    return "\n".join(lines) + "\n"
