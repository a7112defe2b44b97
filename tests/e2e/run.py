#!/usr/bin/env python3
"""Drives one real client directly against S3 servers and through the gateway, and compares.

    run.py --client boto3 --gateway 127.0.0.1:8080 --backend s3s-fs=127.0.0.1:9001 \\
           --backend s3s-fs=127.0.0.1:9002 --domain s3.localhost --access-key A --secret-key S

The backends are those of the gateway's one cluster. Bucket names below the domain resolve to loopback for
this process and its children only. Ends with 0 if every step came out as it must.
"""

import argparse
import ctypes
import os
import shutil
import sys
import tempfile
from pathlib import Path

# By name: the method of `Scenario`.
SCENARIOS = {"path": "path_style", "virtual": "virtual_host_style", "long": "long_keys"}
CLIENTS = ("boto3", "awscli", "s3cmd", "rclone")

# Answers for names from a file of ours; a library that is loaded before the C library.
RESOLVER = "libnss_wrapper.so"

# Tells the process that its environment is the clean one.
CLEAN = "AKUBRA_E2E_FOLDER"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--client", required=True, choices=CLIENTS)
    parser.add_argument("--gateway", required=True, help="HOST:PORT")
    parser.add_argument("--backend", required=True, action="append", help="KIND=HOST:PORT")
    parser.add_argument("--domain", required=True, help="Hosts below it name a bucket")
    parser.add_argument("--access-key", required=True)
    parser.add_argument("--secret-key", required=True)
    parser.add_argument("--scenario", action="append", choices=SCENARIOS, help="default: path and virtual")
    return parser.parse_args()


def bucket(side, client, scenario):
    # Equally long names at both sides: lengths of answers are compared.
    return f"{side}-{client}-{scenario}"


def clean_environment(folder, asked):
    """What a client inherits: no proxies, no certificates, no configuration of whoever runs this."""
    hosts = folder / "hosts"
    buckets = [bucket(side, asked.client, "virtual") for side in ("direct", "behind")]
    names = [asked.domain] + [f"{name}.{asked.domain}" for name in buckets]
    hosts.write_text("".join(f"127.0.0.1 {name}\n" for name in names))
    return {
        CLEAN: str(folder),
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "PATH": os.environ["PATH"],
        "PYTHONDONTWRITEBYTECODE": "1",
        # Names below the domain, for Python and for Go (which asks the C library only when told to).
        "LD_PRELOAD": RESOLVER,
        "NSS_WRAPPER_HOSTS": str(hosts),
        "GODEBUG": "netdns=cgo",
    }


def missing(client):
    """What must be installed to drive a client."""
    lacking = [client] if client in ("s3cmd", "rclone") and shutil.which(client) is None else []
    try:
        ctypes.CDLL(RESOLVER)
    except OSError:
        lacking.append(RESOLVER)
    return lacking


def main():
    asked = arguments()
    if CLEAN not in os.environ:
        if lacking := missing(asked.client):
            sys.exit(f"missing: {', '.join(lacking)}; run scripts/install-missing clients")
        folder = tempfile.mkdtemp(prefix="akubra-e2e-")
        environment = clean_environment(Path(folder), asked)
        os.execve(sys.executable, [sys.executable, *sys.argv], environment)
    folder = Path(os.environ[CLEAN])
    try:
        sys.exit(0 if drive(asked, folder) else 1)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def client_of(name, folder):
    # s3cmd and rclone need no awscli.
    match name:
        case "boto3":
            from clients.boto import Boto3 as chosen
        case "awscli":
            from clients.aws import AwsCli as chosen
        case "s3cmd":
            from clients.s3cmd import S3Cmd as chosen
        case "rclone":
            from clients.rclone import Rclone as chosen
    return chosen(folder)


def drive(asked, folder):
    from scenario import Scenario
    from store import Store

    backends = [tuple(backend.split("=", 1)) for backend in asked.backend]
    store = Store(backends, asked.access_key, asked.secret_key)
    client = client_of(asked.client, folder)
    runs = []
    for name in asked.scenario or ("path", "virtual"):
        runs.append(comparison(asked, name, backends, store))
        getattr(Scenario(runs[-1], client, folder), SCENARIOS[name])()
    return all([run.report() for run in runs])


def comparison(asked, scenario, backends, store):
    """One place at a backend of each kind, one at the gateway."""
    from compare import Comparison, Place

    style = "virtual" if scenario == "virtual" else "path"
    keys = (asked.access_key, asked.secret_key)

    def place(name, kind, address, side):
        return Place(name, kind, address, asked.domain, style, bucket(side, asked.client, scenario), *keys)

    first_of_kind = dict(reversed(backends))
    references = [place(f"directly to {kind}", kind, first_of_kind[kind], "direct") for kind in sorted(first_of_kind)]
    return Comparison(asked.client, references, place("through the gateway", "", asked.gateway, "behind"), store)


if __name__ == "__main__":
    main()
