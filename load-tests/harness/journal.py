"""What the journal costs: the same uploads under each Consistency, in turns, with the journal in SQLite.

CPU time with few connections, as the other cases have; throughput with many, where a write waits for the disk together
with others. The disk's own fsync is measured between the rounds, in the folder where the journals are.
"""

import http.client
import os
import re
import statistics
import time

from .measure import Case, Result, load, once
from .peers import lines_of
from .processes import Failed

LEVELS = ["none", "weak", "strong"]
ROUNDS, TRIES = 9, 4
CPU = Case("journal", "PUT 4 KiB", "PUT", 4096, 32, 12000)
CROWD = Case("journal-crowd", "PUT 4 KiB, 64 clients", "PUT", 4096, 64, 12000)
STRONG_CPU, WEAK_CPU, STRONG_RATE = 1.5, 1.2, 0.6
# In each round.
SYNCS = 25


class Gateways:
    """One for each Consistency, with a journal of its own."""

    def __init__(self, lab):
        self.lab = lab
        self.started = 0
        self.by_level = {level: self.start(level) for level in LEVELS}

    def start(self, level):
        self.started += 1
        gateway = self.lab.akubra(f"akubra-{level}-{self.started}", consistency=level)
        load(self.lab, gateway, CPU, CPU.requests // 10, "warm-up")
        # What the first burst of connections may have cost is known after DialTimeout.
        time.sleep(1.5)
        self.lab.forget_logs()
        return gateway

    def undivided(self, level, case, turn):
        """A run in which no backend missed a write. After one that did, the journal has records and every write to
        their objects is another, for ever: another gateway takes over, whose journal is empty."""
        for _ in range(TRIES):
            gateway = self.by_level[level]
            run = once(self.lab, gateway, case, f"{case.name}-{turn}")
            missed = lines_of(self.lab.folder / f"{gateway.name}.sync.log")
            if not missed:
                return run
            gateway.end()
            self.by_level[level] = self.start(level)
        raise Failed(f"Consistency {level}: a backend missed writes in {TRIES} runs, as {missed[0]}")

    def end(self):
        for gateway in self.by_level.values():
            gateway.end()


def cost_of_certainty(lab):
    gateways = Gateways(lab)
    found = {name: {level: Result([], {}) for level in LEVELS} for name in ("cpu", "crowd")}
    syncs = []
    for turn in range(ROUNDS):
        for name, case in (("cpu", CPU), ("crowd", CROWD)):
            for level in LEVELS[turn % 3 :] + LEVELS[: turn % 3]:
                run = gateways.undivided(level, case, turn)
                found[name][level].runs.append(run)
                print(f"  {case.title:22} {level:6} {run.cpu:7.4f} ms  {run.per_second:7.0f}/s", flush=True)
        syncs += fsyncs(lab.folder)
    found["fsync"] = statistics.median(syncs)
    found["batch"] = of_a_batch(gateways.by_level["strong"])
    gateways.end()
    return found


def fsyncs(folder):
    """Milliseconds of a write of 4 KiB and its fdatasync, each."""
    times = []
    with open(folder / "fsync", "wb", buffering=0) as file:
        for _ in range(SYNCS):
            file.write(b"x" * 4096)
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append((time.perf_counter() - began) * 1e3)
    return times


def of_a_batch(gateway):
    """How many writes the transactions of a gateway's journal began, and how many milliseconds each took; means."""
    connection = http.client.HTTPConnection(gateway.metrics, timeout=10)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()

    def value(series):
        return float(re.search(rf"^{re.escape(series)} (\S+)$", text, re.MULTILINE)[1])

    batches = value('akubra_journal_batch_seconds_count{outcome="made"}')
    begun = value('akubra_journal_changes_total{kind="begun"}')
    return begun / batches, value('akubra_journal_batch_seconds_sum{outcome="made"}') * 1e3 / batches


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
    writes, milliseconds = found["batch"]
    yield (
        f"With `strong` a transaction of the journal began {writes:.1f} writes and took {milliseconds:.2f} ms, means over "
        f"all rounds; fsync is a write of 4 KiB and its fdatasync, the median of {ROUNDS * SYNCS} between the rounds."
    )
