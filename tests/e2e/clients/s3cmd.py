"""s3cmd, as a program; what it was answered is read from what it says when it is debugged."""

import ast
import re

from compare import Answer, Cannot, Outcome

from . import Client
from .presigned import fetch

CONFIGURATION = """
[default]
access_key = {at.access_key}
secret_key = {at.secret_key}
host_base = {host}
host_bucket = {bucket_host}
bucket_location = us-east-1
use_https = False
enable_multipart = {parts}
multipart_chunk_size_mb = 5
preserve_attrs = False
guess_mime_type = False
progress_meter = False
"""

REQUEST = re.compile(r"^DEBUG: Canonical Request:\n(\w+)\n(\S+)$", re.M)
RESPONSE = re.compile(r"^DEBUG: Response:\n(\{.*?\})$", re.M | re.S)
ERROR = re.compile(rb"<Code>(.*?)</Code>(?:.*?<Message>(.*?)</Message>)?", re.S)
SPEED = re.compile(r"\(\d+ bytes in .*?\)")


class S3Cmd(Client):
    # It signs two spaces in a row wrongly: SigV4 makes them one.
    METADATA = Client.METADATA | {"spaced": "two words"}

    def s3cmd(self, at, *words, parts=False):
        configuration = self.folder / "s3cmd.config"
        host = at.endpoint.removeprefix("http://")
        bucket_host = f"%(bucket)s.{host}" if at.style == "virtual" else host
        configuration.write_text(CONFIGURATION.format(at=at, host=host, bucket_host=bucket_host, parts=parts))
        done = self.run("s3cmd", "--config", configuration, "--debug", *words)
        printed = SPEED.sub("", done.stdout.decode())
        return Outcome(answers(done.stderr.decode()), {"exit": done.returncode, "printed": printed})

    def make_bucket(self, at):
        return self.s3cmd(at, "mb", f"s3://{at.bucket}")

    def put(self, at, key, source, metadata=None, content_type=None):
        more = [f"--add-header=x-amz-meta-{name}:{value}" for name, value in (metadata or {}).items()]
        more += [f"--mime-type={content_type}"] if content_type else []
        return self.s3cmd(at, "put", source, f"s3://{at.bucket}/{key}", *more)

    def put_multipart(self, at, key, source):
        return self.s3cmd(at, "put", source, f"s3://{at.bucket}/{key}", parts=True)

    def get(self, at, key):
        return self.get_after(at, key, b"", "--force")

    def get_range(self, at, key, first, last=None):
        if last is not None:
            raise Cannot("s3cmd asks for the rest of an object only")
        outcome = self.get_after(at, key, bytes(first), "--continue")
        outcome.body = outcome.body[first:]
        return outcome

    def get_after(self, at, key, begun, *words):
        """Into a file that already holds the bytes in `begun`."""
        if set(key) & set("*?"):
            raise Cannot("s3cmd takes * and ? in what it reads for wildcards")
        target = self.folder / "target"
        target.write_bytes(begun)
        outcome = self.s3cmd(at, "get", *words, f"s3://{at.bucket}/{key}", target)
        outcome.body = target.read_bytes() if target.exists() else None
        return outcome

    def head(self, at, key):
        outcome = self.s3cmd(at, "info", f"s3://{at.bucket}/{key}")
        # Servers give metadata in any order.
        outcome.result["printed"] = sorted(outcome.result["printed"].splitlines())
        return outcome

    def list(self, at, prefix=""):
        return self.s3cmd(at, "ls", f"s3://{at.bucket}/{prefix}")

    def list_all(self, at):
        return self.s3cmd(at, "ls", "--recursive", f"s3://{at.bucket}")

    def copy(self, at, source, key):
        return self.s3cmd(at, "cp", f"s3://{at.bucket}/{source}", f"s3://{at.bucket}/{key}")

    def delete(self, at, key):
        return self.s3cmd(at, "del", f"s3://{at.bucket}/{key}")

    def delete_many(self, at, prefix, keys):
        return self.s3cmd(at, "del", "--recursive", "--force", f"s3://{at.bucket}/{prefix}")

    def presigned_get(self, at, key):
        signed = self.s3cmd(at, "signurl", f"s3://{at.bucket}/{key}", "+600")
        return fetch("GET", signed.result["printed"].strip())

    def presigned_put(self, at, key, body):
        raise Cannot("s3cmd presigns GET only")


def answers(log):
    requests, responses = REQUEST.findall(log), RESPONSE.findall(log)
    if len(requests) != len(responses):
        raise ValueError(f"{len(requests)} requests and {len(responses)} answers in\n{log}")
    return [answer(method, target, ast.literal_eval(text)) for (method, target), text in zip(requests, responses)]


def answer(method, target, response):
    error = ERROR.search(response.get("data", b"")) if response["status"] >= 300 else None
    said = b" ".join(part for part in error.groups() if part).decode() if error else ""
    return Answer(method, target, response["status"], response["headers"], said)
