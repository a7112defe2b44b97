"""The side by side: every case against every peer, in rounds, so that what disturbs the machine disturbs all alike."""

import dataclasses
import json
import signal
import statistics
import subprocess
import time

from .processes import Failed, wait_for

LIMIT = 120


@dataclasses.dataclass(frozen=True)
class Case:
    name: str
    title: str
    method: str
    size: int
    connections: int
    requests: int


CASES = [
    Case("put-4k", "PUT 4 KiB", "PUT", 4096, 32, 24000),
    Case("put-100k", "PUT 100 KB", "PUT", 100_000, 32, 10000),
    Case("put-5m", "PUT 5 MB", "PUT", 5_000_000, 4, 300),
    Case("get-4k", "GET 4 KiB", "GET", 4096, 32, 30000),
    Case("get-100k", "GET 100 KB", "GET", 100_000, 32, 15000),
    Case("get-5m", "GET 5 MB", "GET", 5_000_000, 4, 500),
]


@dataclasses.dataclass
class Run:
    """One run. Times in milliseconds, memory in bytes."""

    cpu: float
    user: float
    system: float
    per_second: float
    p50: float
    p99: float
    peak: int


def client(lab, address, size, *arguments):
    command = [lab.programs / "client", "--address", address, "--size", str(size), "--limit", str(LIMIT)]
    return [*map(str, command), *map(str, arguments)]


def load(lab, process, case, requests, name, *more):
    """Runs the client; every answer has to be the right one."""
    options = ["load", case.method, "--connections", case.connections, "--requests", requests, "--name", name, *more]
    done = subprocess.run(
        client(lab, process.address, case.size, *options), capture_output=True, text=True, timeout=LIMIT + 10
    )
    if done.returncode != 0:
        raise Failed(f"{case.title} through {process.name}: {done.stderr.strip()}")
    outcome = json.loads(done.stdout)
    if outcome["errors"]:
        complaints = "\n".join(outcome["complaints"])
        raise Failed(f"{case.title} through {process.name}: {outcome['errors']} errors, as\n{complaints}")
    return outcome


def once(lab, process, case, name):
    process.forget_peak()
    coarse, before = process.user_and_system(), process.cpu()
    outcome = load(lab, process, case, case.requests, name)
    # What is left to do for these requests, as logs that are written behind them.
    settle(process)
    after = process.cpu()
    user, system = (now - then for now, then in zip(process.user_and_system(), coarse))
    each = 1e3 / case.requests
    return Run(
        cpu=(after - before) * each,
        user=user * each,
        system=system * each,
        per_second=case.requests / outcome["seconds"],
        p50=outcome["p50"] / 1e3,
        p99=outcome["p99"] / 1e3,
        peak=process.peak(),
    )


def settle(process):
    """Waits until the process rests."""
    last = process.cpu()
    for _ in range(40):
        time.sleep(0.025)
        now = process.cpu()
        if now - last < 0.0005:
            return
        last = now


def system_calls(lab, process, case, requests):
    """Calls per request by name, from a run under strace."""
    file = lab.folder / "strace"
    # Of nginx the worker, which comes after its master.
    pid = str(process.pids()[-1])
    said = lab.folder / "strace.out"
    with open(said, "wb") as output:
        tracer = subprocess.Popen(["strace", "-f", "-c", "-o", file, "-p", pid], stderr=output)
    try:
        wait_for(f"strace to attach to {process.name}", lambda: " attached" in said.read_text())
        load(lab, process, case, requests, "strace")
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.wait(20)
    calls = {}
    for line in file.read_text().splitlines():
        fields = line.split()
        if len(fields) >= 5 and fields[0].replace(".", "").isdigit():
            calls[fields[-1]] = int(fields[3]) / requests
    if "total" not in calls:
        raise Failed(f"strace counted nothing of {process.name}:\n{said.read_text()}")
    return calls


def profile(lab, process, case, into):
    """Where the process spends its time, by function."""
    data = lab.folder / "perf.data"
    recorder = subprocess.Popen(
        ["perf", "record", "-q", "-e", "cpu-clock", "-F", "1999", "-p", str(process.pids()[-1]), "-o", data],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        load(lab, process, case, case.requests, "profile")
    finally:
        recorder.send_signal(signal.SIGINT)
        recorder.wait(20)
    report = subprocess.run(
        ["perf", "report", "--stdio", "--no-children", "--percent-limit", "0.4", "-i", data],
        capture_output=True,
        text=True,
        timeout=60,
    )
    into.mkdir(parents=True, exist_ok=True)
    file = into / f"{process.name}-{case.name}.txt"
    file.write_text(report.stdout)
    return file


@dataclasses.dataclass
class Result:
    """All runs of one case through one peer."""

    runs: list
    calls: dict

    def median(self, field):
        return statistics.median(getattr(run, field) for run in self.runs)

    def spread(self, field):
        values = [getattr(run, field) for run in self.runs]
        return min(values), max(values)
