"""How a step is timed: the warm-up, then each step by itself."""

import gc
import statistics
import time
from collections.abc import Callable

WARMUP_STEPS = 20
WARMUP_SECONDS = 0.3
LEAST_STEPS = 5  # of the warm-up and of what is timed, however slow they are
MAX_WARMUP_SECONDS = 10.0  # a warm-up ends here with fewer steps
MAX_SECONDS = 20.0  # and a run with the steps it has


def sample(run: Callable[[int], object], steps: int, per_block: int = 1, warmup: int = WARMUP_STEPS) -> dict[str, float]:
    """Median, 10th and 90th percentile in microseconds of one call, after the warm-up; and how many were timed."""
    start, i = time.perf_counter(), 0
    while (passed := time.perf_counter() - start) < WARMUP_SECONDS or i < warmup:
        if passed > MAX_WARMUP_SECONDS and i >= LEAST_STEPS:
            break
        run(i)
        i += 1
    gc.collect()
    gc.freeze()
    clock, times = time.perf_counter_ns, []
    deadline = clock() + int(MAX_SECONDS * 1e9)
    for step in range(i, i + steps):
        before = clock()
        run(step)
        times.append((clock() - before) / (1e3 * per_block))
        if len(times) >= LEAST_STEPS and clock() > deadline:
            break
    cuts = statistics.quantiles(times, n=10, method="inclusive")
    return {"median_us": statistics.median(times), "p10_us": cuts[0], "p90_us": cuts[-1], "timed": len(times)}
