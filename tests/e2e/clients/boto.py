"""boto3, as a library: its parsed answers are compared field by field."""

from datetime import datetime
from functools import cache

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError

from compare import Cannot, Outcome

from . import Client
from .botocore_tap import Tap, in_order
from .presigned import fetch

# One attempt: a retry would hide what the first answer was.
ATTEMPTS = {"total_max_attempts": 1}


class Boto3(Client):
    def __init__(self, folder):
        super().__init__(folder)
        self.tap = Tap()

    @cache
    def s3(self, endpoint, style, access_key, secret_key):
        s3 = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id=access_key,
            aws_secret_access_key=secret_key,
            config=Config(s3={"addressing_style": style}, signature_version="s3v4", retries=ATTEMPTS),
        )
        self.tap.attach(s3.meta.events)
        return s3

    def client(self, at):
        return self.s3(at.endpoint, at.style, at.access_key, at.secret_key)

    def call(self, at, operation, **arguments):
        try:
            result = getattr(self.client(at), operation)(Bucket=at.bucket, **arguments)
        except ClientError as error:
            result = error.response
        result = dict(result or {})
        result.pop("ResponseMetadata", None)
        body = result.pop("Body").read() if "Body" in result else None
        return Outcome(self.tap.take(), in_order(plain(result)), body)

    def make_bucket(self, at):
        return self.call(at, "create_bucket")

    def put(self, at, key, source, metadata=None, content_type=None):
        more = {"ContentType": content_type} if content_type else {}
        with open(source, "rb") as body:
            return self.call(at, "put_object", Key=key, Body=body, Metadata=metadata or {}, **more)

    def put_multipart(self, at, key, source):
        config = TransferConfig(multipart_threshold=1, multipart_chunksize=5 << 20, use_threads=False)
        return self.call(at, "upload_file", Filename=str(source), Key=key, Config=config)

    def raw_metadata(self):
        raise Cannot("boto3 takes metadata in ASCII only")

    def get(self, at, key):
        return self.call(at, "get_object", Key=key)

    def get_range(self, at, key, first, last=None):
        return self.call(at, "get_object", Key=key, Range=f"bytes={first}-{'' if last is None else last}")

    def head(self, at, key):
        return self.call(at, "head_object", Key=key)

    def list(self, at, prefix=""):
        return self.call(at, "list_objects_v2", Prefix=prefix, Delimiter="/")

    def list_all(self, at):
        return self.call(at, "list_objects")

    def copy(self, at, source, key):
        return self.call(at, "copy_object", CopySource={"Bucket": at.bucket, "Key": source}, Key=key)

    def delete(self, at, key):
        return self.call(at, "delete_object", Key=key)

    def delete_many(self, at, prefix, keys):
        return self.call(at, "delete_objects", Delete={"Objects": [{"Key": key} for key in keys]})

    def presigned_get(self, at, key):
        return self.presigned(at, "GET", "get_object", key, None)

    def presigned_put(self, at, key, body):
        return self.presigned(at, "PUT", "put_object", key, body)

    def presigned(self, at, method, operation, key, body):
        arguments = {"Bucket": at.bucket, "Key": key}
        return fetch(method, self.client(at).generate_presigned_url(operation, arguments, 600), body)


def plain(value):
    """A parsed answer without types of its own."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return "TIME" if isinstance(value, datetime) else value
