"""rclone, as a program; what it was answered is read from its dump of headers.

Before it writes, it looks for what is there; afterwards it looks at what it wrote.
"""

import os
import re

from compare import Answer, Cannot, Outcome

from . import Client
from .presigned import fetch

CONFIGURATION = """
[s3]
type = s3
provider = Other
access_key_id = {at.access_key}
secret_access_key = {at.secret_key}
endpoint = {at.endpoint}
region = us-east-1
force_path_style = {path_style}
upload_cutoff = {cutoff}
chunk_size = 5Mi
"""

# One request at a time, each once.
ORDERLY = ["--retries=1", "--low-level-retries=1", "--transfers=1", "--checkers=1"]

IN_PAST, IN_FUTURE = 1_500_000_000, 4_000_000_000

MESSAGE = re.compile(r"DEBUG : HTTP (REQUEST|RESPONSE) \(req (\w+)\)\n\S+ \S+ DEBUG : (.*?)\n\n", re.S)


class Rclone(Client):
    def rclone(self, at, *words, cutoff="5Gi", check_bucket=False):
        configuration = self.folder / "rclone.config"
        path_style = str(at.style == "path").lower()
        configuration.write_text(CONFIGURATION.format(at=at, path_style=path_style, cutoff=cutoff))
        more = [] if check_bucket else ["--s3-no-check-bucket"]
        done = self.run("rclone", f"--config={configuration}", "-vv", "--dump=headers", *ORDERLY, *more, *words)
        outcome = Outcome(answers(done.stderr.decode().replace("\r\n", "\n")), {"exit": done.returncode})
        return outcome, done.stdout

    def printing(self, at, *words, **more):
        """A command whose output is text."""
        outcome, printed = self.rclone(at, *words, **more)
        outcome.result["printed"] = printed.decode()
        return outcome

    def reading(self, at, *words):
        """A command whose output is an object."""
        outcome, outcome.body = self.rclone(at, *words)
        return outcome

    def make_bucket(self, at):
        return self.printing(at, "mkdir", f"s3:{at.bucket}", check_bucket=True)

    def put(self, at, key, source, metadata=None, content_type=None):
        # With metadata go the file's times; this one is never moved by reading the file.
        os.utime(source, (IN_FUTURE, IN_PAST))
        more = [f"--metadata-set={name}={value}" for name, value in (metadata or {}).items()]
        more += ["--metadata"] if metadata else []
        more += [f"--header-upload=Content-Type: {content_type}"] if content_type else []
        return self.printing(at, "copyto", source, path(at, key), *more)

    def put_multipart(self, at, key, source):
        return self.printing(at, "copyto", source, path(at, key), cutoff="0")

    def get(self, at, key):
        target = self.folder / "target"
        target.unlink(missing_ok=True)
        outcome = self.printing(at, "copyto", path(at, key), target)
        outcome.body = target.read_bytes() if target.exists() else None
        return outcome

    def get_range(self, at, key, first, last=None):
        more = [] if last is None else [f"--count={last - first + 1}"]
        return self.reading(at, "cat", f"--offset={first}", *more, path(at, key))

    def head(self, at, key):
        return self.printing(at, "lsjson", "--stat", "--metadata", path(at, key))

    def list(self, at, prefix=""):
        return self.printing(at, "lsjson", f"s3:{at.bucket}/{prefix}")

    def list_all(self, at):
        # Without a HEAD for each object.
        return self.printing(at, "lsjson", "--recursive", "--no-modtime", "--no-mimetype", f"s3:{at.bucket}")

    def copy(self, at, source, key):
        return self.printing(at, "copyto", path(at, source), path(at, key))

    def delete(self, at, key):
        return self.printing(at, "deletefile", path(at, key))

    def delete_many(self, at, prefix, keys):
        raise Cannot("rclone sends one DELETE for each object")

    def presigned_get(self, at, key):
        signed = self.printing(at, "link", "--expire=10m", path(at, key))
        return fetch("GET", signed.result["printed"].strip())

    def presigned_put(self, at, key, body):
        raise Cannot("rclone presigns GET only")


def path(at, key):
    if "//" in key:
        raise Cannot("rclone makes one / of several")
    return f"s3:{at.bucket}/{key}"


def answers(log):
    found, requests = [], {}
    for direction, number, head in MESSAGE.findall(log):
        first, *lines = head.split("\n")
        if direction == "REQUEST":
            requests[number] = first.split(" ")
        else:
            method, target, _ = requests[number]
            headers = dict(line.split(": ", 1) for line in lines)
            found.append(Answer(method, target.partition("?")[0], int(first.split(" ")[1]), headers))
    return found
