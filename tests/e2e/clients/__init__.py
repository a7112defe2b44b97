"""The clients, each behind the same few operations.

An operation takes a `Place` and returns an `Outcome`; what a client has no way to do raises `Cannot` with the
reason. Programs run with a HOME and configuration of their own, in a folder that goes away.
"""

import subprocess
from pathlib import Path

PROGRAM_ENDS_WITHIN = 60


class Client:
    # The last is how S3 itself returns what is no ASCII (RFC 2047): "grün 日本語".
    METADATA = {"colour": "blue", "spaced": "two  words", "encoded": "=?UTF-8?B?Z3LDvG4g5pel5pys6Kqe?="}

    def __init__(self, folder: Path):
        self.folder = folder

    def make_bucket(self, at):
        raise NotImplementedError

    def put(self, at, key, source, metadata=None, content_type=None):
        """`source` is a file; its content goes up in one request."""
        raise NotImplementedError

    def put_multipart(self, at, key, source):
        """In parts of 5 MiB."""
        raise NotImplementedError

    def raw_metadata(self):
        """Metadata that is no ASCII and is sent as it is."""
        return {"raw": "grün 日本語"}

    def get(self, at, key):
        raise NotImplementedError

    def get_range(self, at, key, first, last=None):
        raise NotImplementedError

    def head(self, at, key):
        raise NotImplementedError

    def list(self, at, prefix=""):
        """What is directly below a prefix."""
        raise NotImplementedError

    def list_all(self, at):
        raise NotImplementedError

    def copy(self, at, source, key):
        raise NotImplementedError

    def delete(self, at, key):
        raise NotImplementedError

    def delete_many(self, at, prefix, keys):
        """`keys` are all there are below a prefix. In one request."""
        raise NotImplementedError

    def presigned_get(self, at, key):
        raise NotImplementedError

    def presigned_put(self, at, key, body):
        raise NotImplementedError

    def run(self, *command):
        """Runs a program to its end."""
        command = [str(word) for word in command]
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=PROGRAM_ENDS_WITHIN)
