"""Processes under measurement: started, waited for, accounted for, and ended by their own ids.

CPU time comes from the process's CPU clock, which the kernel keeps in nanoseconds over all threads, also those that
have ended; /proc/PID/stat has the same sum in steps of 10 ms. Only the split into user and system is taken from there.
"""

import os
import pathlib
import signal
import socket
import subprocess
import time

LOOPBACK = "127.0.0.1"
START = 20.0
END = 20.0
_TICK = os.sysconf("SC_CLK_TCK")


class Failed(Exception):
    """Something did not do what the measurement rests on."""


def free_port():
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return probe.getsockname()[1]


def wait_for(what, condition, limit=START):
    """Polls until the condition is true."""
    end = time.monotonic() + limit
    while not (found := condition()):
        if time.monotonic() > end:
            raise Failed(f"waited {limit:.0f} s for {what}")
        time.sleep(0.005)
    return found


def accepts(port):
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((LOOPBACK, port)) == 0


def status(pid, key):
    """A number of KiB from /proc/PID/status."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1])
    raise Failed(f"no {key} for process {pid}")


class Process:
    """A child process with a port. Its output goes to a file in the work folder."""

    def __init__(self, name, command, port, folder):
        self.name = name
        self.port = port
        self.output = folder / f"{name}.out"
        # The gateway's configuration says what it logs, not the caller's environment.
        environment = {name: value for name, value in os.environ.items() if name != "RUST_LOG"}
        with open(self.output, "ab") as output:
            self.child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
            )

    @property
    def address(self):
        return f"{LOOPBACK}:{self.port}"

    def ready(self):
        def up():
            if self.child.poll() is not None:
                raise Failed(f"{self.name} ended at its start:\n{self.said()}")
            return accepts(self.port)

        wait_for(f"{self.name} to listen", up)
        return self

    def said(self):
        return self.output.read_text(errors="replace")[-2000:]

    def pids(self):
        """The process and its children, as nginx has its workers."""
        pid = self.child.pid
        children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *map(int, children)]

    def threads(self):
        return [int(task) for pid in self.pids() for task in os.listdir(f"/proc/{pid}/task")]

    def cpu(self):
        """Seconds of CPU time so far."""
        # The clock of another process: CPUCLOCK_SCHED of its thread group, see clock_getcpuclockid(3).
        return sum(time.clock_gettime_ns((~pid << 3) | 2) for pid in self.pids()) / 1e9

    def user_and_system(self):
        """Seconds of each, in coarse steps."""
        totals = [0, 0]
        for pid in self.pids():
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            totals[0] += int(fields[11])
            totals[1] += int(fields[12])
        return [total / _TICK for total in totals]

    def rss(self):
        return sum(status(pid, "VmRSS") for pid in self.pids()) * 1024

    def peak(self):
        """The most memory since `forget_peak`."""
        return sum(status(pid, "VmHWM") for pid in self.pids()) * 1024

    def forget_peak(self):
        for pid in self.pids():
            pathlib.Path(f"/proc/{pid}/clear_refs").write_text("5")

    def alive(self):
        return self.child.poll() is None

    def signal(self, number):
        self.child.send_signal(number)

    def end(self, limit=END):
        """SIGTERM, and SIGKILL where that does not do."""
        if self.alive():
            self.signal(signal.SIGTERM)
        try:
            return self.child.wait(limit)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
            raise Failed(f"{self.name} did not end within {limit:.0f} s") from None


class Running:
    """All processes of a measurement; ends them whatever happens."""

    def __init__(self):
        self.processes = []

    def __enter__(self):
        return self

    def start(self, process):
        self.processes.append(process)
        return process.ready()

    def __exit__(self, *_):
        left = {pid: process for process in self.processes if process.alive() for pid in process.pids()}
        for process in set(left.values()):
            # The quick end for all of them; on SIGTERM Pingora would wait for minutes.
            process.signal(signal.SIGINT)
        end = time.monotonic() + 2
        while time.monotonic() < end and any(process.alive() for process in left.values()):
            time.sleep(0.01)
        for pid, process in left.items():
            # A child's id is its own until it is waited for; a worker is looked at before.
            if process.alive():
                kill(pid)
        for process in self.processes:
            process.child.wait()


def kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
