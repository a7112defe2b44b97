"""The figures that are no side by side: memory under a slow backend, memory of idle connections, takeovers, logs.

Each starts a gateway of its own, so that its memory is that of this load alone.
"""

import collections
import http.client
import json
import signal
import subprocess
import threading
import time

from .measure import Case, Result, client, load, once
from .peers import lines_of
from .processes import Failed, wait_for

KIB, MIB = 1 << 10, 1 << 20

UPLOADS, UPLOAD = 64, 64 * MIB
SLOW = MIB
IDLE = 2000
# For the gateway to finish what it does behind its answers.
REST = 0.7
WARM_UP = Case("warm-up", "warm-up", "PUT", 4096, 1, 1000)
TAKEOVERS, CLIENTS, HELD = 5, 200, 100
# More than the time between takeovers allows.
REQUESTS = 1_000_000
# Many short rounds: the two halves of each see the same machine, and what disturbs one round is one of many.
LOGGED = Case("logs", "PUT 4 KiB", "PUT", 4096, 32, 12000)
LOG_ROUNDS, LOG_TRIES = 25, 4
SCRAPES_EVERY = 1.0


class Talker:
    """A client that is given orders and answers in JSON, line by line."""

    def __init__(self, command):
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.stdin.close()
        try:
            self.child.wait(5)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()

    def hear(self):
        # The client ends by itself when its time is over, so this does, too.
        line = self.child.stdout.readline()
        if not line:
            raise Failed("the client gave up")
        return json.loads(line)

    def order(self, word):
        self.child.stdin.write(word + "\n")
        self.child.stdin.flush()
        return self.hear()


def memory_with_a_slow_backend(lab):
    """Peak memory of the gateway, and what became of the uploads."""
    slow = lab.sink("sink-slow", "--rate", str(SLOW))
    gateway = lab.akubra("akubra-memory", two=slow)
    case = Case("memory", f"{UPLOADS} uploads of 64 MiB", "PUT", UPLOAD, UPLOADS, UPLOADS)
    outcome = load(lab, gateway, case, case.requests, "large")
    peak = gateway.peak()
    gateway.end(60)
    records = len(lines_of(lab.folder / "akubra-memory.sync.log"))
    slow.end()
    return {"peak": peak, "seconds": outcome["seconds"], "records": records}


def memory_of_idle_connections(lab):
    """Bytes of memory per connection that did one PUT of 4 KiB and stays open.

    Counted from the gateway's first moment, so with what any load takes once. After a load of many connections the
    allocator keeps memory that idle ones then move into: from there on they would seem to cost nothing.
    """
    gateway = lab.akubra("akubra-idle")
    time.sleep(REST)
    without = gateway.rss()
    load(lab, gateway, WARM_UP, WARM_UP.requests, "warm-up")
    time.sleep(REST)
    warm = gateway.rss()
    with Talker(client(lab, gateway.address, 4096, "idle", "--connections", IDLE)) as idle:
        standing = idle.hear()
        if standing["errors"]:
            raise Failed(f"{standing['errors']} of {IDLE} idle connections failed: {standing['complaints']}")
        time.sleep(REST)
        among = gateway.rss()
    gateway.end()
    return {
        "without": without,
        "warm": warm,
        "with": among,
        "each": (among - without) / IDLE,
        "each_warm": (among - warm) / IDLE,
    }


def takeovers(lab):
    """What clients saw of takeovers under load, and what was lost by them."""
    sinks = [lab.sink(f"sink-kept-{name}", "--paths", lab.folder / f"kept-{name}") for name in ("one", "two")]
    gateway = lab.akubra("akubra-takeover", one=sinks[0], two=sinks[1])
    answered = lab.folder / "answered"
    options = ["takeover", "--clients", CLIENTS, "--held", HELD, "--requests", REQUESTS, "--paths", answered]
    times = []
    with Talker(client(lab, gateway.address, 4096, *options)) as clients:
        time.sleep(1)
        for _ in range(TAKEOVERS):
            gateway, took = take_over(lab, gateway, clients)
            times.append(took)
            time.sleep(1)
        tally = clients.order("stop")
    gateway.end(60)
    for sink in sinks:
        sink.end()
    tally["lost"] = lost(lab, sinks, answered)
    tally["seconds"] = times
    return tally


def take_over(lab, old, clients):
    """One takeover. Returns the new gateway, and how long the old one lived on."""
    socket = lab.folder / "akubra-takeover.upgrade"
    socket.unlink(missing_ok=True)
    new = lab.gateway("akubra-takeover", lab.folder / "akubra-takeover.yaml", old.port, None, "-u")
    lab.running.processes.append(new)

    def waits():
        if not new.alive():
            raise Failed(f"the successor ended at its start:\n{new.said()}")
        return socket.exists()

    wait_for("the successor to wait for sockets", waits)
    clients.order("hold")
    began = time.monotonic()
    old.signal(signal.SIGQUIT)
    clients.order("use")
    wait_for("the old gateway to end", lambda: not old.alive(), 60)
    if old.child.returncode != 0 or not new.alive():
        raise Failed(f"after the takeover: exit code {old.child.returncode}; the successor said\n{new.said()}")
    return new, time.monotonic() - began


def lost(lab, sinks, answered):
    """PUTs that were answered 200 and are neither on a backend nor recorded as missing there."""
    recorded = collections.defaultdict(set)
    for line in lines_of(lab.folder / "akubra-takeover.sync.log"):
        record = json.loads(line)
        recorded[record["failedhost"]].add(record["path"])
    paths = set(lines_of(answered))
    missing = set()
    for sink, name in zip(sinks, ("one", "two")):
        kept = set(lines_of(lab.folder / f"kept-{name}"))
        missing |= paths - kept - recorded[f"http://{sink.address}"]
    return {"answered": len(paths), "lost": len(missing), "recorded": sum(map(len, recorded.values()))}


class Scraper(threading.Thread):
    """Asks for metrics once a second, as Prometheus does but more often, until it is stopped."""

    def __init__(self, address):
        super().__init__(daemon=True)
        self.connection = http.client.HTTPConnection(address, timeout=10)
        self.ended = threading.Event()
        self.scrapes = self.bytes = 0
        self.failure = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.join()
        self.connection.close()

    def run(self):
        try:
            while not self.ended.wait(SCRAPES_EVERY):
                self.connection.request("GET", "/metrics")
                self.bytes = len(self.connection.getresponse().read())
                self.scrapes += 1
        except (OSError, http.client.HTTPException) as failure:
            self.failure = failure


def cost_of_telling(lab):
    """CPU time per PUT with every log on and metrics scraped, and with neither, in turns.

    Scrapes go on at their own pace, so that on average a run has as many as it has seconds.
    """
    gateways = {"telling": lab.akubra("akubra-telling"), "silent": lab.akubra("akubra-silent", silent=True)}
    results = {name: Result([], {}) for name in gateways}
    for gateway in gateways.values():
        load(lab, gateway, LOGGED, LOGGED.requests // 10, "warm-up")
    # What the first burst of connections may have cost is known after DialTimeout.
    time.sleep(1.5)
    lab.forget_logs()
    lines = 0
    with Scraper(gateways["telling"].metrics) as scraper:
        for turn in range(LOG_ROUNDS):
            order = list(gateways) if turn % 2 else list(reversed(gateways))
            for name in order:
                run = undivided(lab, gateways[name], turn)
                results[name].runs.append(run)
                print(f"  {name:8} {run.cpu:7.4f} ms  {run.per_second:7.0f}/s", flush=True)
            lines += len(lines_of(lab.folder / "akubra-telling.access.log"))
            lab.forget_logs()
    if scraper.failure or not scraper.scrapes:
        raise Failed(f"metrics could not be scraped: {scraper.failure}")
    for gateway in gateways.values():
        gateway.end()
    if lines != LOG_ROUNDS * LOGGED.requests:
        raise Failed(f"the access log has {lines} lines for {LOG_ROUNDS * LOGGED.requests} requests")
    pairs = zip(results["telling"].runs, results["silent"].runs)
    ratios = [telling.cpu / silent.cpu for telling, silent in pairs]
    return {"results": results, "ratios": ratios, "scrapes": scraper.scrapes, "bytes": scraper.bytes}


def undivided(lab, gateway, turn):
    """A run in which no backend missed a write: one that did has done less. The silent gateway's cannot be seen."""
    for _ in range(LOG_TRIES):
        run = once(lab, gateway, LOGGED, f"logs-{turn}")
        if not lines_of(lab.folder / "akubra-telling.sync.log"):
            return run
        lab.forget_logs()
    raise Failed(f"{gateway.name}: a backend missed writes in {LOG_TRIES} runs")
