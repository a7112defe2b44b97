"""awscli: `aws s3` where it has a command, `aws s3api` where it has not.

Starting the program takes longer than what it does. So it is loaded once for each configuration, and each
command runs in a fork of that: a command leaves handlers behind for the next one.
"""

import contextlib
import io
import json
import multiprocessing
import os
from functools import cache

from awscli import clidriver

from compare import Cannot, Outcome

from . import Client
from .botocore_tap import Tap, in_order
from .presigned import fetch

# One request at a time: several would come in any order. One attempt: a retry would hide the first answer.
CONFIGURATION = """
[default]
region = us-east-1
output = json
max_attempts = 1
aws_access_key_id = {access_key}
aws_secret_access_key = {secret_key}
s3 =
    addressing_style = {style}
    signature_version = s3v4
    max_concurrent_requests = 1
    multipart_threshold = {threshold}
    multipart_chunksize = 5MB
"""

FORK = multiprocessing.get_context("fork")

ONE_REQUEST, PARTS = "5GB", "5MB"


class AwsCli(Client):
    def __init__(self, folder):
        super().__init__(folder)
        self.configuration = folder / "aws.config"
        os.environ["AWS_CONFIG_FILE"] = str(self.configuration)
        os.environ["AWS_EC2_METADATA_DISABLED"] = "true"

    @cache
    def driver(self, style, access_key, secret_key, threshold):
        """The program with one configuration, and all it can know before it gets a command."""
        self.configuration.write_text(CONFIGURATION.format(**locals()))
        driver = clidriver.create_clidriver()
        # This reads the configuration, and the description of S3.
        driver.session.create_client("s3", endpoint_url="http://localhost")
        return driver

    def aws(self, at, *words, threshold=ONE_REQUEST):
        """Runs one command; what it has printed and was answered."""
        driver = self.driver(at.style, at.access_key, at.secret_key, threshold)
        command = ["--endpoint-url", at.endpoint, *(str(word) for word in words)]
        outcome, result = FORK.Pipe(duplex=False)
        process = FORK.Process(target=run, args=(driver, command, result))
        process.start()
        result.close()
        try:
            return outcome.recv()
        finally:
            process.join()

    def s3(self, at, *words, **more):
        return self.aws(at, "s3", *words, **more)

    def s3api(self, at, operation, *words):
        return self.aws(at, "s3api", operation, "--bucket", at.bucket, *words)

    def reading(self, action):
        """With what was read into the file that `action` gets the name of."""
        target = self.folder / "target"
        target.unlink(missing_ok=True)
        outcome = action(target)
        outcome.body = target.read_bytes() if target.exists() else None
        return outcome

    def make_bucket(self, at):
        return self.s3(at, "mb", f"s3://{at.bucket}")

    def put(self, at, key, source, metadata=None, content_type=None):
        more = ["--metadata", json.dumps(metadata)] if metadata else []
        more += ["--content-type", content_type] if content_type else []
        return self.s3(at, "cp", "--no-progress", source, f"s3://{at.bucket}/{key}", *more)

    def put_multipart(self, at, key, source):
        return self.s3(at, "cp", "--no-progress", source, f"s3://{at.bucket}/{key}", threshold=PARTS)

    def raw_metadata(self):
        raise Cannot("awscli takes metadata in ASCII only")

    def get(self, at, key):
        url = f"s3://{at.bucket}/{key}"
        return self.reading(lambda target: self.s3(at, "cp", "--no-progress", url, target))

    def get_range(self, at, key, first, last=None):
        wanted = f"bytes={first}-{'' if last is None else last}"
        words = ["get-object", "--key", key, "--range", wanted]
        return self.reading(lambda target: self.s3api(at, *words, target))

    def head(self, at, key):
        return self.s3api(at, "head-object", "--key", key)

    def list(self, at, prefix=""):
        return self.s3(at, "ls", f"s3://{at.bucket}/{prefix}")

    def list_all(self, at):
        return self.s3(at, "ls", "--recursive", f"s3://{at.bucket}")

    def copy(self, at, source, key):
        return self.s3(at, "cp", "--no-progress", f"s3://{at.bucket}/{source}", f"s3://{at.bucket}/{key}")

    def delete(self, at, key):
        return self.s3(at, "rm", f"s3://{at.bucket}/{key}")

    def delete_many(self, at, prefix, keys):
        wanted = json.dumps({"Objects": [{"Key": key} for key in keys]})
        return self.s3api(at, "delete-objects", "--delete", wanted)

    def presigned_get(self, at, key):
        signed = self.s3(at, "presign", f"s3://{at.bucket}/{key}", "--expires-in", "600")
        return fetch("GET", signed.result["printed"].strip())

    def presigned_put(self, at, key, body):
        raise Cannot("awscli presigns GET only")


def run(driver, command, result):
    """In the fork: one command to its end."""
    tap = Tap()
    tap.attach(driver.session.get_component("event_emitter"))
    printed = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        status = driver.main(command)
    result.send(Outcome(tap.take(), {"exit": status, "printed": parsed(printed.buffer.getvalue().decode())}))


def parsed(text):
    """JSON as what it says: servers give metadata in any order."""
    try:
        return in_order(json.loads(text))
    except ValueError:
        return text
