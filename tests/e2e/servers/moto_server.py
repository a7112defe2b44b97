#!/usr/bin/env python3
"""moto's S3, which holds keys that file systems cannot. It checks no signatures.

Listens on a loopback port of its own, prints one line with its URL, and ends when its standard input does.
"""

import logging
import sys

from moto.server import ThreadedMotoServer

logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
host, port = server.get_host_and_port()
print(f"http://{host}:{port}", flush=True)
sys.stdin.read()
server.stop()
