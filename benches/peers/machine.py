"""What the machine is, and how much of its CPU other processes use: from /proc, so on Linux alone."""

import os
import pathlib
import platform
import resource
import time


def describe() -> dict[str, str]:
    """Date, CPU with its vector units, cores, memory and kernel, for the head of a table."""
    info = pathlib.Path("/proc/cpuinfo").read_text()
    facts = dict(line.split(":", 1) for line in info.split("\n\n")[0].splitlines() if ":" in line)
    facts = {key.strip(): value.strip() for key, value in facts.items()}
    flags = set(facts.get("flags", facts.get("Features", "")).split())
    vectors = [f for f in ("avx2", "fma", "avx512f", "avx512_bf16", "asimd", "sve") if f in flags]
    family = f"family {facts['cpu family']} model {facts['model']}" if "cpu family" in facts else platform.machine()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{facts.get('model name', 'unknown CPU')} ({family}; {' '.join(vectors)}), {os.cpu_count()} cores, "
        f"{memory:.0f} GiB, Linux {platform.release()}, Python {platform.python_version()}",
    }


def busy_seconds() -> float:
    """CPU seconds that all cores together have spent on anything, time stolen by the host included."""
    fields = pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[:8])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def own_seconds() -> float:
    """CPU seconds of this process and of its children that have ended."""
    usages = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(u.ru_utime + u.ru_stime for u in usages)


class OtherWork:
    """The share of all cores that processes other than this one and its ended children have used since it was made."""

    def __init__(self) -> None:
        self.clock, self.busy, self.own = time.monotonic(), busy_seconds(), own_seconds()

    def share(self) -> float:
        """From 0 to about 1. The kernel counts in ticks of 10 ms: take it over a second or more."""
        wall = (time.monotonic() - self.clock) * (os.cpu_count() or 1)
        others = (busy_seconds() - self.busy) - (own_seconds() - self.own)
        return max(others, 0.0) / wall
