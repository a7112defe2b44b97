#!/usr/bin/env python3
"""Ceph's S3 gateway (RGW) with as little Ceph behind it as it needs: one monitor, one OSD in memory.

Everything lives in a temporary folder and listens on loopback ports of its own. Prints one line with the
URL once RGW answers, and ends, with all that it started, when its standard input does. cephx stays on:
with `auth none` radosgw hangs at its start. A manager is not needed for a cluster without statistics.
"""

import argparse
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

PROGRAMS = ["ceph", "ceph-authtool", "ceph-mon", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin"]

# One replica, few placement groups, objects in memory, nothing in /var or /etc. The last block keeps a
# cluster of one from complaining where nobody reads it.
CONFIGURATION = """
[global]
fsid = {fsid}
mon initial members = a
mon host = [v2:127.0.0.1:{mon_port}]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
keyring = {folder}/$name.keyring
run dir = {folder}
admin socket = {folder}/$name.asok
log file = {folder}/$name.log
crash dir = {folder}
mon cluster log file = {folder}/cluster.log
mon data = {folder}/mon
osd data = {folder}/osd
osd objectstore = memstore
memstore device bytes = 4294967296
osd crush chooseleaf type = 0
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pg autoscale mode = off
mon allow pool size one = true
mon max pg per osd = 1000
mon warn on pool no redundancy = false
rgw data = {folder}
rgw dns name = {domain}
rgw frontends = beast endpoint=127.0.0.1:{rgw_port}
"""

READY_WITHIN = 90
ENDS_WITHIN = 10


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Ceph:
    """The running cluster. A context: its end stops every process that it started."""

    def __init__(self, access_key, secret_key, domain):
        self.keys = (access_key, secret_key)
        self.domain = domain
        self.folder = Path(tempfile.mkdtemp(prefix="akubra-ceph-"))
        self.configuration = self.folder / "ceph.conf"
        self.fsid = str(uuid.uuid4())
        self.mon_port, self.rgw_port = free_port(), free_port()
        self.running = []

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.rgw_port}"

    def start(self):
        self.configuration.write_text(
            CONFIGURATION.format(
                fsid=self.fsid,
                folder=self.folder,
                domain=self.domain,
                mon_port=self.mon_port,
                rgw_port=self.rgw_port,
            )
        )
        self.start_monitor()
        self.start_osd()
        self.start_rgw()

    def start_monitor(self):
        keyring, map_file = self.folder / "mon..keyring", self.folder / "monmap"
        self.run("ceph-authtool", "--create-keyring", keyring, "--gen-key", "-n", "mon.", "--cap", "mon", "allow *")
        admin = self.folder / "client.admin.keyring"
        caps = [word for daemon in ("mon", "osd", "mgr") for word in ("--cap", daemon, "allow *")]
        self.run("ceph-authtool", "--create-keyring", admin, "--gen-key", "-n", "client.admin", *caps)
        self.run("ceph-authtool", keyring, "--import-keyring", admin)
        address = f"[v2:127.0.0.1:{self.mon_port}]"
        self.run("monmaptool", "--create", "--fsid", self.fsid, "--addv", "a", address, map_file)
        (self.folder / "mon").mkdir()
        self.ceph_run("ceph-mon", "--mkfs", "-i", "a", "--monmap", map_file, "--keyring", keyring)
        self.spawn("ceph-mon", "-i", "a")

    def start_osd(self):
        (self.folder / "osd").mkdir()
        identity = str(uuid.uuid4())
        self.ceph("osd", "new", identity)
        caps = ("mon", "allow profile osd", "osd", "allow *")
        self.ceph("auth", "get-or-create", "osd.0", *caps, "-o", self.folder / "osd.0.keyring")
        self.ceph_run("ceph-osd", "--mkfs", "-i", "0", "--osd-uuid", identity)
        self.spawn("ceph-osd", "-i", "0")
        self.wait("the OSD to be up", lambda: json.loads(self.ceph("osd", "stat", "-f", "json"))["num_up_osds"])

    def start_rgw(self):
        caps = ("mon", "allow rw", "osd", "allow rwx")
        self.ceph("auth", "get-or-create", "client.rgw", *caps, "-o", self.folder / "client.rgw.keyring")
        access_key, secret_key = self.keys
        user = ("--uid", "e2e", "--display-name", "e2e", "--access-key", access_key, "--secret", secret_key)
        self.ceph_run("radosgw-admin", "user", "create", *user)
        self.spawn("radosgw", "-n", "client.rgw")
        self.wait("RGW to answer", self.answers)

    def answers(self):
        try:
            urllib.request.urlopen(self.url, timeout=2).close()
        except (urllib.error.URLError, OSError) as error:
            return isinstance(error, urllib.error.HTTPError)
        return True

    def ceph(self, *arguments):
        return self.ceph_run("ceph", "--connect-timeout", "20", *arguments)

    def ceph_run(self, program, *arguments):
        return self.run(program, "-c", self.configuration, *arguments)

    def run(self, *command):
        command = [str(word) for word in command]
        done = subprocess.run(command, capture_output=True, text=True, timeout=READY_WITHIN)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
        return done.stdout

    def spawn(self, program, *arguments):
        with open(self.folder / f"{program}.out", "w") as out:
            command = [program, "-f", "-c", str(self.configuration), *arguments]
            self.running.append((program, subprocess.Popen(command, stdout=out, stderr=out)))

    def wait(self, what, condition):
        deadline = time.monotonic() + READY_WITHIN
        while not condition():
            for program, process in self.running:
                if process.poll() is not None:
                    raise SystemExit(f"{program} ended:\n{(self.folder / f'{program}.out').read_text()}")
            if time.monotonic() > deadline:
                raise SystemExit(f"waited {READY_WITHIN} s for {what}; logs are in {self.folder}")
            time.sleep(0.2)

    def stop(self):
        for _, process in reversed(self.running):
            process.terminate()
        for _, process in reversed(self.running):
            try:
                process.wait(ENDS_WITHIN)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--access-key", required=True)
    parser.add_argument("--secret-key", required=True)
    parser.add_argument("--domain", required=True, help="Hosts below it name a bucket")
    arguments = parser.parse_args()
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        raise SystemExit(f"missing: {', '.join(missing)}; run scripts/install-missing ceph")
    with Ceph(arguments.access_key, arguments.secret_key, arguments.domain) as ceph:
        print(ceph.url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
