"""What the journal costs: the same uploads under each Consistency, in turns, with the journal in SQLite.

CPU time with few connections, as the other cases have; throughput with many, where a write waits for the disk together
with others. The disk's own fsync is measured beside it, in the folder where the journals are.
"""

import os
import statistics
import time

from .measure import Case, Result, load, once
from .peers import lines_of
from .processes import Failed

LEVELS = ["none", "weak", "strong"]
ROUNDS = 9
CPU = Case("journal", "PUT 4 KiB", "PUT", 4096, 32, 12000)
CROWD = Case("journal-crowd", "PUT 4 KiB, 64 clients", "PUT", 4096, 64, 12000)
STRONG_CPU, WEAK_CPU, STRONG_RATE = 1.5, 1.2, 0.6
SYNCS = 200


def cost_of_certainty(lab):
    gateways = {level: lab.akubra(f"akubra-{level}", consistency=level) for level in LEVELS}
    found = {"cpu": {level: Result([], {}) for level in LEVELS}, "crowd": {level: Result([], {}) for level in LEVELS}}
    for gateway in gateways.values():
        load(lab, gateway, CPU, CPU.requests // 10, "warm-up")
    # What the first burst of connections may have cost is known after DialTimeout.
    time.sleep(1.5)
    lab.forget_logs()
    for turn in range(ROUNDS):
        for name, case in (("cpu", CPU), ("crowd", CROWD)):
            for level in LEVELS[turn % 3 :] + LEVELS[: turn % 3]:
                run = undivided(lab, gateways[level], case, turn)
                found[name][level].runs.append(run)
                print(f"  {case.title:22} {level:6} {run.cpu:7.4f} ms  {run.per_second:7.0f}/s", flush=True)
    found["fsync"] = fsync(lab.folder)
    for gateway in gateways.values():
        gateway.end()
    return found


def undivided(lab, gateway, case, turn):
    """A run in which no backend missed a write: one that did has done less, and the journal more."""
    for _ in range(4):
        run = once(lab, gateway, case, f"{case.name}-{turn}")
        missed = lines_of(lab.folder / f"{gateway.name}.sync.log")
        if not missed:
            return run
        lab.forget_logs()
    raise Failed(f"{gateway.name}: a backend missed writes in 4 runs, as {missed[0]}")


def fsync(folder):
    """Milliseconds of a write of 4 KiB and its fdatasync, the median."""
    times = []
    with open(folder / "fsync", "wb", buffering=0) as file:
        for _ in range(SYNCS):
            file.write(b"x" * 4096)
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append((time.perf_counter() - began) * 1e3)
    return statistics.median(times)


def ratios(found, case, level, field):
    """Round by round, against `none`."""
    pairs = zip(found[case][level].runs, found[case]["none"].runs)
    return [getattr(run, field) / getattr(none, field) for run, none in pairs]


def rows(found):
    """What was measured of the promised figures: name, limit, measured, kept."""

    def shown(values):
        low, middle, high = statistics.quantiles(values, n=4)
        return f"{middle:.2f} ({low:.2f}..{high:.2f})", middle

    for level, limit in (("strong", STRONG_CPU), ("weak", WEAK_CPU)):
        measured, middle = shown(ratios(found, "cpu", level, "cpu"))
        yield f"PUT 4 KiB, CPU time per request, `{level}` on SQLite against `none`", f"{limit:.2f}", measured, middle <= limit
    measured, middle = shown(ratios(found, "crowd", "strong", "per_second"))
    name = f"PUT 4 KiB, 64 clients, requests per second, `strong` on SQLite against `none`; fsync {found['fsync']:.2f} ms"
    yield name, f"at least {STRONG_RATE}", measured, middle >= STRONG_RATE


def lines(found):
    for case, title in (("cpu", CPU), ("crowd", CROWD)):
        medians = ", ".join(
            f"{level} {result.median('cpu'):.4f} ms and {result.median('per_second'):,.0f}/s"
            for level, result in found[case].items()
        )
        yield f"Consistency, {title.title}, {title.connections} connections, medians of {ROUNDS} rounds of {title.requests:,}: {medians}."
