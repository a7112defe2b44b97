"""What is measured: the gateway, the bare pass-through, nginx and haproxy, each with one thread, set up as a careful
operator would for objects of any size: bodies streamed where that can be had, connections kept on both sides, no
limits that the load would meet. Only the gateway logs and counts.
"""

import os

from .processes import LOOPBACK, Process, free_port

# A worker process takes one core, as the one thread of the others does.
_NGINX = """
daemon off;
{user}
worker_processes 1;
pid {folder}/{name}.pid;
error_log {folder}/{name}.log warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {folder}/{name}.body;
    proxy_temp_path {folder}/{name}.proxy;
    fastcgi_temp_path {folder}/{name}.fastcgi;
    scgi_temp_path {folder}/{name}.scgi;
    uwsgi_temp_path {folder}/{name}.uwsgi;
    keepalive_timeout 300s;
    keepalive_requests 100000000;
    client_max_body_size 0;
    {body_buffer}
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Host $http_host;
    proxy_buffer_size 16k;
    proxy_buffers 16 32k;
    proxy_busy_buffers_size 64k;
    proxy_max_temp_file_size 0;
    upstream one {{ server {one}; keepalive 64; keepalive_requests 100000000; }}
    upstream two {{ server {two}; keepalive 64; keepalive_requests 100000000; }}
    server {{
        listen {address};
        {locations}
    }}
}}
"""
_NGINX_ONE = "location / { proxy_request_buffering off; proxy_pass http://one; }"
_NGINX_MIRROR = """
        location / { mirror /mirror; proxy_pass http://one; }
        location = /mirror { internal; proxy_pass http://two$request_uri; }"""

_HAPROXY = """
global
    nbthread 1
    maxconn 4096
defaults
    mode http
    option http-keep-alive
    http-reuse always
    timeout connect 5s
    timeout client 300s
    timeout server 300s
frontend clients
    bind {address}
    default_backend sink
backend sink
    server one {one}
"""

_GATEWAY = """
Listen: "{address}"
HealthCheckEndpoint: /status/ping
Clusters:
  cluster:
    Backends:
      - http://{one}
      - http://{two}
Regions:
  region:
    Clusters:
      - Cluster: cluster
        Weight: 1
    Default: true{consistency}
threads: 1
StateDirectory: {folder}/{name}.state
upgrade_sock: {folder}/{name}.upgrade
"""
_TELLS = """
Logging:
  Synclog: {{stderr: false, file: "{folder}/{name}.sync.log"{synclog}}}
  Mainlog: {{stderr: false, file: "{folder}/{name}.main.log", level: Info}}
  Accesslog: {{file: "{folder}/{name}.access.log"}}
  ClusterSyncLog: {{file: "{folder}/{name}.clustersync.log"}}
Metrics:
  Target: prometheus
  ExpAddr: "{metrics}"
"""
# The main log at the same level: one that goes nowhere makes its lines all the same.
_SILENT = """
Logging:
  Mainlog: {{stderr: false, level: Info}}
"""


def lines_of(file):
    return file.read_text().splitlines() if file.exists() else []


class Lab:
    """Where processes are started: a folder for their files, the sinks, and the programs of this repository."""

    def __init__(self, running, folder, programs, akubra):
        self.running = running
        self.folder = folder
        self.programs = programs
        self.akubra_program = akubra
        self.one = self.two = None

    def start_sinks(self):
        self.one = self.sink("sink-one")
        self.two = self.sink("sink-two")

    def sink(self, name, *options):
        port = free_port()
        command = [self.programs / "sink", "--listen", f"{LOOPBACK}:{port}", *options]
        return self.running.start(Process(name, command, port, self.folder))

    def forget_logs(self):
        """Empties the logs that grow, and returns what the synclogs had. They are opened for appending."""
        records = [line for file in self.folder.glob("*.sync.log") for line in lines_of(file)]
        for file in [*self.folder.glob("*.sync.log"), *self.folder.glob("*.access.log")]:
            os.truncate(file, 0)
        return records

    def write(self, name, template, port, **values):
        values = {
            "folder": self.folder,
            "address": f"{LOOPBACK}:{port}",
            "one": self.one.address,
            "two": self.two.address,
            "synclog": "",
            **values,
        }
        file = self.folder / name
        file.write_text(template.format(name=file.stem, **values))
        return file

    def akubra(self, name="akubra", program=None, one=None, two=None, silent=False, synclog="", consistency=None):
        """The gateway with all its logs and metrics, or with none; `synclog` are more destinations of that log. With a
        `consistency` it has a journal in SQLite."""
        port, metrics = free_port(), f"{LOOPBACK}:{free_port()}"
        values = {"one": (one or self.one).address, "two": (two or self.two).address, "metrics": metrics}
        values["synclog"] = synclog
        values["consistency"] = f"\n    Consistency: {consistency}\nJournal: {{}}" if consistency else ""
        file = self.write(f"{name}.yaml", _GATEWAY + (_SILENT if silent else _TELLS), port, **values)
        process = self.gateway(name, file, port, program)
        process.metrics = None if silent else metrics
        return self.running.start(process)

    def gateway(self, name, file, port, program=None, *options):
        """A gateway's process with this configuration; not waited for."""
        command = [program or self.akubra_program, *options, "-c", file]
        return Process(name, command, port, self.folder)

    def pass_through(self, name="pass-through"):
        port = free_port()
        command = [self.programs / "pass-through", "--listen", f"{LOOPBACK}:{port}", "--backend", self.one.address]
        return self.running.start(Process(name, command, port, self.folder))

    def nginx(self, name="nginx"):
        # Read sizes of a streamed body; the default of 16k would make a call of every 16 KiB.
        return self._nginx(name, _NGINX_ONE, "client_body_buffer_size 128k;")

    def nginx_mirror(self, name="nginx-mirror"):
        """Bodies over the default of 16k go to a file: nginx reads a body whole before it mirrors it."""
        return self._nginx(name, _NGINX_MIRROR, "")

    def nginx_mirror_in_memory(self, name="nginx-mirror-ram"):
        """The same with buffers for 100 KB in memory: 128 KiB for each request under way."""
        return self._nginx(name, _NGINX_MIRROR, "client_body_buffer_size 128k;")

    def _nginx(self, name, locations, body_buffer):
        port = free_port()
        user = "user root;" if os.getuid() == 0 else ""
        file = self.write(
            f"{name}.conf", _NGINX, port, locations=locations, body_buffer=body_buffer, user=user
        )
        command = ["nginx", "-p", self.folder, "-e", self.folder / f"{name}.log", "-c", file]
        return self.running.start(Process(name, command, port, self.folder))

    def haproxy(self, name="haproxy"):
        port = free_port()
        file = self.write(f"{name}.cfg", _HAPROXY, port)
        return self.running.start(Process(name, ["haproxy", "-db", "-f", file], port, self.folder))


# Which of them take part, and in what: one that mirrors has nothing of its own to show in reading.
PEERS = {
    "akubra": (Lab.akubra, ("PUT", "GET")),
    "pass-through": (Lab.pass_through, ("PUT", "GET")),
    "nginx": (Lab.nginx, ("PUT", "GET")),
    "nginx-mirror": (Lab.nginx_mirror, ("PUT",)),
    "nginx-mirror-ram": (Lab.nginx_mirror_in_memory, ("PUT",)),
    "haproxy": (Lab.haproxy, ("PUT", "GET")),
}
