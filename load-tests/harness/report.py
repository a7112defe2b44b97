"""What load-tests/RESULTS.md says: the figures with their limits first, then all that was measured."""

import datetime
import os
import pathlib
import platform
import re
import statistics
import subprocess

from . import figures, journal, synclog
from .figures import MIB
from .measure import CASES, Result

# CPU time per request of the gateway at most so many times that of the other.
RATIOS = [
    ("put-4k", "pass-through", 2.0),
    ("put-100k", "pass-through", 1.9),
    ("put-5m", "pass-through", 1.9),
    ("get-4k", "pass-through", 1.35),
    ("get-100k", "pass-through", 1.2),
    ("get-5m", "pass-through", 1.15),
    ("put-4k", "nginx-mirror", 2.4),
    ("put-100k", "nginx-mirror", 0.55),
    ("put-5m", "nginx-mirror", 0.50),
]
PEAK_LIMIT = 256 * MIB
IDLE_LIMIT = 28 * figures.KIB
# CPU time per request with every log on and metrics scraped, at most so many times that with neither.
TELLING_LIMIT = 1.15

HEAD = """\
# What the gateway costs

Written by `load-tests/run` (`make load-test`); CPU time is what it is about. Proxy, client and sinks share the cores of
one machine, so throughput and latency say how the whole of them did, while the CPU time of the proxy's own process
depends on the others only by the caches that they share. Ratios are steadier than times, and both want a quiet machine.

"""

PEERS = """\
| peer | what it is |
|---|---|
| akubra | this program: PUT to two backends, GET from one of them; access log, main log (Info), synclog and ClusterSyncLog to files, metrics on |
| pass-through | bare Pingora, one backend: `load-tests/peers/src/bin/pass-through.rs`; the gateway's build profile and allocator |
| nginx | `proxy_pass` to one backend, bodies streamed (`proxy_request_buffering off`) |
| nginx-mirror | `mirror` to a second backend, whose answers it ignores; bodies over 16 KiB, its default, go through a file first |
| nginx-mirror-ram | the same with `client_body_buffer_size 128k`: 100 KB stay in memory, 5 MB do not |
| haproxy | one backend, bodies streamed |

One thread (a worker process) each, no logs but the gateway's, connections kept on both sides, HTTP/1.1 without TLS over
the loopback interface. Requests carry the headers of a signed S3 request. The sinks discard bodies. Every case runs in
rounds, in which each peer has its turn; numbers are medians over the rounds, ratios are those of the medians, and in
brackets is the smallest and the largest of the rounds. CPU time is user + system of all threads, from a process's CPU
clock, until it rests. System calls are those of one separate run under strace, which slows the proxy down.

"""


def said_by(*command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    return (done.stdout + done.stderr).strip()


def cell(*values):
    return "| " + " | ".join(values) + " |"


class Sheet:
    def __init__(self, options, root, command):
        self.options = options
        self.root = root
        self.command = command
        self.results = {}
        self.failures = []
        self.figures = {}
        self.repeated = []
        self.seconds = 0

    def add(self, case, peer, run):
        self.results.setdefault((case.name, peer), Result([], {})).runs.append(run)

    def add_calls(self, case, peer, calls):
        self.results[case.name, peer].calls = calls

    def add_figure(self, name, found):
        self.figures[name] = found

    def fail(self, text):
        self.failures.append(text)

    def kept(self):
        return not self.failures and all(kept for *_, kept in self.rows())

    def ratio(self, case, peer, other):
        """Of the medians, and the smallest and largest of the rounds."""
        ours, theirs = self.results.get((case, peer)), self.results.get((case, other))
        if not ours or not theirs:
            return None
        rounds = [our.cpu / their.cpu for our, their in zip(ours.runs, theirs.runs)]
        return ours.median("cpu") / theirs.median("cpu"), min(rounds), max(rounds)

    # ---- The figures ----

    def rows(self):
        """What was measured of the promised figures: name, limit, measured, kept."""
        titles = {case.name: case.title for case in CASES}
        for case, other, limit in RATIOS:
            if found := self.ratio(case, "akubra", other):
                name = f"{titles[case]}, CPU time per request against {other}"
                measured = f"{found[0]:.2f} ({found[1]:.2f}..{found[2]:.2f})"
                yield name, f"{limit:.2f}", measured, found[0] <= limit
        if logs := self.figures.get("logs"):
            ratio, (low, _, high) = statistics.median(logs["ratios"]), statistics.quantiles(logs["ratios"], n=4)
            name = "PUT 4 KiB, CPU time per request with every log on and metrics scraped each second, against neither"
            yield name, f"{TELLING_LIMIT:.2f}", f"{ratio:.2f} ({low:.2f}..{high:.2f})", ratio <= TELLING_LIMIT
        if memory := self.figures.get("memory"):
            measured = f"{memory['peak'] / MIB:.0f} MiB"
            name = "Peak memory, 64 uploads of 64 MiB at once, one of two backends reads 1 MiB/s"
            yield name, "256 MiB", measured, memory["peak"] <= PEAK_LIMIT
        if idle := self.figures.get("idle"):
            name = "Memory per idle client connection, 2,000 of them"
            measured = f"{idle['each'] / figures.KIB:.1f} KiB"
            yield name, "28 KiB", measured, idle["each"] <= IDLE_LIMIT
        if takeovers := self.figures.get("takeover"):
            for kind in ("fresh", "reused", "held"):
                failed = takeovers[kind]["failed"]
                total = failed + takeovers[kind]["good"]
                name = f"Five takeovers, 200 clients: failed on {kind} connections"
                yield name, "0", f"{failed} of {total}", failed == 0
            lost = takeovers["lost"]
            yield (
                "Five takeovers, 200 clients: answered 200, yet neither on both backends nor recorded",
                "0",
                f"{lost['lost']} of {lost['answered']}",
                lost["lost"] == 0,
            )

        if records := self.figures.get("synclog-postgres"):
            name = f"Synclog into PostgreSQL, {synclog.RATE:,} records per second offered for {synclog.SECONDS} s: rows per second"
            rate = records["rate"]
            yield name, f"at least {synclog.LEAST:,}", f"{rate:,.0f}", rate >= synclog.LEAST
            outage = records["outage"]
            name = f"Synclog, database away for {synclog.AWAY} s at {synclog.AWAY_RATE} records per second: lost, delivered twice"
            measured = f"{outage['lost']} and {outage['twice']} of {outage['records']:,}"
            yield name, "0", measured, outage["lost"] == 0 and outage["twice"] == 0

        if found := self.figures.get("journal"):
            yield from journal.rows(found)

    def figure_lines(self):
        rows = list(self.rows())
        if rows:
            yield from ("| figure | at most | measured | |", "|---|---|---|---|")
            for name, limit, measured, kept in rows:
                yield cell(name, limit, measured, "kept" if kept else "**not kept**")
            yield ""
        if logs := self.figures.get("logs"):
            telling, silent = logs["results"]["telling"], logs["results"]["silent"]
            yield (
                f"Every log on: access log, synclog, ClusterSyncLog and main log (Info) to files; each request has its line in "
                f"the access log, and as nothing diverged the others had none. The ratio is the median of {len(telling.runs)} "
                f"rounds of {figures.LOGGED.requests:,} requests each, with and without in turns; in brackets is the "
                f"middle half. Medians: {telling.median('cpu'):.4f} ms with, {silent.median('cpu'):.4f} ms without. "
                f"Metrics were scraped {logs['scrapes']} times, {logs['bytes'] / figures.KIB:.0f} KiB each."
            )
        if memory := self.figures.get("memory"):
            yield (
                f"The uploads took {memory['seconds']:.1f} s, all of them were answered 200, and {memory['records']} of "
                f"{figures.UPLOADS} were recorded as missing on the slow backend."
            )
        if idle := self.figures.get("idle"):
            yield (
                f"Idle connections: {idle['without'] / MIB:.1f} MiB resident at the start, "
                f"{idle['with'] / MIB:.1f} MiB once {figures.IDLE:,} connections have done one PUT of 4 KiB each and stay. "
                f"In between {figures.WARM_UP.requests:,} PUTs on one connection had brought it to "
                f"{idle['warm'] / MIB:.1f} MiB: counted from there a connection costs "
                f"{idle['each_warm'] / figures.KIB:.1f} KiB."
            )
        if takeovers := self.figures.get("takeover"):
            times = ", ".join(f"{seconds:.1f}" for seconds in takeovers["seconds"])
            yield (
                f"Takeovers: {takeovers['reused']['sent_again']} requests were sent once more because a reused connection "
                f"was closed before an answer; held connections ({figures.HELD} each time) were opened before SIGQUIT and "
                f"used 100 ms after it; {takeovers['lost']['recorded']} records were written; the old process ended "
                f"after {times} s."
            )
        if records := self.figures.get("synclog-postgres"):
            outage = records["outage"]
            yield (
                f"Synclog: every PUT of 1 KiB found one of two backends gone, so made a record, to a file and to the database. "
                f"The last row was there {records['behind']:.2f} s after the last answer. The gateway spent "
                f"{records['cpu'] * 1e3:.3f} ms of CPU time per request, PostgreSQL {records['database_cpu'] * 1e3:.3f} ms. "
                f"After the outage the {outage['waiting']:,} records that waited were delivered in {outage['catching_up']:.1f} s."
            )
        if found := self.figures.get("journal"):
            yield from journal.lines(found)
        if self.figures:
            yield ""

    # ---- The side by side ----

    def case_lines(self, case):
        of_case = {peer: result for (name, peer), result in self.results.items() if name == case.name}
        if not of_case:
            return
        yield f"## {case.title}: {case.connections} connections, {case.requests:,} requests a run"
        yield ""
        yield (
            "| | CPU ms per request | user / system | to pass-through | to nginx-mirror | requests/s | p50 ms | p99 ms "
            "| peak MiB | calls |"
        )
        yield "|---|---|---|---|---|---|---|---|---|---|"
        for peer, result in of_case.items():
            yield self.case_line(case, peer, result)
        yield ""
        for peer, result in of_case.items():
            often = sorted(result.calls.items(), key=lambda call: -call[1])
            named = [f"{name} {count:.2f}" for name, count in often if name != "total" and count >= 0.05]
            if named:
                yield f"- {peer}: {', '.join(named)}"
        yield ""

    def case_line(self, case, peer, result):
        def spread(field, digits):
            low, high = result.spread(field)
            return f"{result.median(field):.{digits}f} ({low:.{digits}f}..{high:.{digits}f})"

        def ratio(other):
            found = self.ratio(case.name, peer, other) if peer != other else None
            return f"{found[0]:.2f} ({found[1]:.2f}..{found[2]:.2f})" if found else ""

        digits = 4 if case.size < 1_000_000 else 2
        return cell(
            peer,
            spread("cpu", digits),
            f"{result.median('user'):.{digits - 1}f} / {result.median('system'):.{digits - 1}f}",
            ratio("pass-through"),
            ratio("nginx-mirror"),
            spread("per_second", 0),
            f"{result.median('p50'):.2f}",
            spread("p99", 2),
            f"{result.median('peak') / MIB:.0f}",
            f"{result.calls['total']:.1f}" if result.calls else "",
        )

    # ---- All of it ----

    def text(self):
        lines = [HEAD.rstrip(), "", *self.machine(), ""]
        lines += [f"**Failed: {failure}**\n" for failure in self.failures]
        lines += self.figure_lines()
        if self.results:
            lines += [PEERS.rstrip(), ""]
        if self.repeated:
            lines += [
                "Runs that were thrown away and repeated, because a sink fell so far behind that the gateway gave up and "
                f"recorded what waited for it: {'; '.join(self.repeated)}.",
                "",
            ]
        for case in CASES:
            lines += self.case_lines(case)
        return "\n".join(lines).rstrip() + "\n"

    def machine(self):
        model = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
        commit = said_by("git", "-C", str(self.root), "rev-parse", "--short", "HEAD")
        changed = said_by("git", "-C", str(self.root), "status", "--porcelain", "--", ":!load-tests/RESULTS.md")
        pingora = re.search(
            r'name = "pingora-core"\nversion = "(.*)"', (self.root / "Cargo.lock").read_text()
        )
        versions = [
            f"Pingora {pingora[1]}" if pingora else "",
            said_by("rustc", "--version").partition(" (")[0],
            said_by("nginx", "-v").rpartition("/")[2].join(("nginx ", "")),
            "haproxy " + said_by("haproxy", "-v").split()[2],
        ]
        now = datetime.datetime.now(datetime.UTC)
        load = f"{os.getloadavg()[2]:.1f}"
        yield f"- {now:%Y-%m-%d %H:%M} UTC, commit {commit}{' with changes' if changed else ''}, `{self.command}`, {self.seconds:.0f} s"
        yield f"- {os.cpu_count()} cores ({model[1] if model else platform.machine()}), Linux {platform.release()}, load average {load} over 15 minutes"
        yield f"- {', '.join(filter(None, versions))}"
