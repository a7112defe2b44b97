"""The synclog into PostgreSQL: what is sustained, and what an outage loses.

One of the gateway's two backends is gone, so that each PUT makes a record. PostgreSQL is a private one, with the
settings that it comes with, fsync among them.
"""

import collections
import json
import os
import pathlib
import signal
import subprocess
import threading
import time
import types

from .measure import Case, load, settle
from .peers import lines_of
from .processes import LOOPBACK, Failed, free_port, wait_for

# Offered a little more than is promised, since the client's own start counts as well.
LEAST, RATE, SECONDS = 2000, 2100, 30
AWAY_RATE, AROUND, AWAY = 500, 10, 60
CASE = Case("synclog", "PUT 1 KiB, one backend gone", "PUT", 1024, 32, 0)
MIGRATION = pathlib.Path(__file__).resolve().parents[2] / "conf" / "postgres" / "001-synclog.sql"
CATCH_UP = 120


class Postgres:
    """A server in the work folder, by its unix socket. It refuses to run as root, so it has Debian's user there."""

    def __init__(self, folder):
        self.folder = folder / "postgres"
        self.folder.mkdir()
        # The work folder is its owner's; the server's user has to get through.
        os.chmod(folder, 0o711)
        self.user = []
        if os.getuid() == 0:
            self.user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
            subprocess.run(["chown", "postgres:postgres", self.folder], check=True)
        self.programs = max(pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb")).parent
        self.port = free_port()
        self.child = None
        self.run("initdb", "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8", "-D", self.folder / "data")

    def run(self, program, *arguments):
        done = subprocess.run(
            [*self.user, self.programs / program, *arguments], cwd="/", capture_output=True, text=True, timeout=60
        )
        if done.returncode != 0:
            raise Failed(f"{program}: {done.stderr.strip()}")

    def start(self):
        log = open(self.folder / "log", "ab")
        command = [self.programs / "postgres", "-D", self.folder / "data", "-k", self.folder, "-p", str(self.port)]
        with log:
            self.child = subprocess.Popen(
                [*self.user, *command, "-c", "listen_addresses="], cwd="/", stdout=log, stderr=log
            )
        wait_for("PostgreSQL to answer", lambda: self.ask("SELECT 1", "postgres", check=False) == "1")

    def stop(self):
        if self.child:
            self.child.send_signal(signal.SIGINT)
            self.child.wait(30)
            self.child = None

    def ask(self, query, database="akubra", check=True):
        command = [self.programs / "psql", "-qAt", "-h", self.folder, "-p", str(self.port), "-U", "postgres"]
        done = subprocess.run([*command, "-d", database, "-c", query], capture_output=True, text=True, timeout=60)
        if done.returncode != 0 and check:
            raise Failed(f"PostgreSQL: {done.stderr.strip()}")
        return done.stdout.strip()

    def prepare(self):
        self.ask("CREATE ROLE akubra LOGIN", "postgres")
        self.ask("CREATE DATABASE akubra", "postgres")
        self.ask(MIGRATION.read_text())
        self.ask("GRANT INSERT, SELECT (id) ON akubra_synclog TO akubra")

    def rows(self):
        return int(self.ask("SELECT count(*) FROM akubra_synclog"))

    def cpu(self):
        """Seconds of CPU time of its processes that are alive, sessions of psql not among them."""
        pids = [self.child.pid]
        for file in pathlib.Path(f"/proc/{self.child.pid}/task/{self.child.pid}/children").read_text().split():
            pids.append(int(file))
        return sum(time.clock_gettime_ns((~pid << 3) | 2) for pid in pids) / 1e9


def into_postgres(lab):
    postgres = Postgres(lab.folder)
    try:
        postgres.start()
        postgres.prepare()
        return measured(lab, postgres)
    finally:
        postgres.stop()


def measured(lab, postgres):
    keys = f"user: akubra, dbname: akubra, host: {postgres.folder}, port: {postgres.port}"
    gone = types.SimpleNamespace(address=f"{LOOPBACK}:{free_port()}")
    gateway = lab.akubra("akubra-synclog", two=gone, synclog=f", database: {{{keys}}}")
    load(lab, gateway, CASE, 500, "warm-up")
    wait_for("the rows of the warm-up", lambda: postgres.rows() == 500)
    found = sustained(lab, postgres, gateway)
    found["outage"] = outage(lab, postgres, gateway)
    gateway.end(60)
    return found


def sustained(lab, postgres, gateway):
    """Rows per second from the first request to the last row."""
    count, before = RATE * SECONDS, postgres.rows()
    cpu, database_cpu = gateway.cpu(), postgres.cpu()
    began = time.monotonic()
    load(lab, gateway, CASE, count, "sustained", "--rate", RATE)
    answered = time.monotonic()
    wait_for("all rows", lambda: postgres.rows() >= before + count, CATCH_UP)
    ended = time.monotonic()
    settle(gateway)
    return {
        "rate": count / (ended - began),
        "behind": ended - answered,
        "cpu": (gateway.cpu() - cpu) / count,
        "database_cpu": (postgres.cpu() - database_cpu) / count,
    }


def outage(lab, postgres, gateway):
    """What is in the database afterwards of what the synclog's file has."""
    client = Loading(lab, gateway, AWAY_RATE, AWAY_RATE * (AROUND + AWAY + AROUND))
    time.sleep(AROUND)
    postgres.stop()
    time.sleep(AWAY)
    file = lab.folder / "akubra-synclog.sync.log"
    recorded = len(lines_of(file))
    postgres.start()
    began, waiting = time.monotonic(), recorded - postgres.rows()
    wait_for("the rows that waited", lambda: postgres.rows() >= recorded, CATCH_UP)
    caught_up = time.monotonic() - began
    client.join()
    wait_for("the last rows", lambda: postgres.rows() >= len(lines_of(file)), CATCH_UP)
    records = collections.Counter(json.loads(line)["reqID"] for line in lines_of(file))
    rows = collections.Counter(postgres.ask("SELECT reqid FROM akubra_synclog").split())
    return {
        "records": records.total(),
        "lost": (records - rows).total(),
        "twice": (rows - records).total(),
        "waiting": waiting,
        "catching_up": caught_up,
    }


class Loading(threading.Thread):
    """The client, beside what is done to the database."""

    def __init__(self, lab, gateway, rate, requests):
        super().__init__(daemon=True)
        self.failure = None
        self.work = lambda: load(lab, gateway, CASE, requests, "outage", "--rate", rate)
        self.start()

    def run(self):
        try:
            self.work()
        except (Failed, OSError, subprocess.SubprocessError) as failure:
            self.failure = failure

    def join(self, timeout=None):
        super().join(timeout)
        if self.failure:
            raise Failed(str(self.failure))
