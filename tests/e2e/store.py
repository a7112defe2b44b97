"""Looks into the backends themselves: which objects are there, with what bytes and what metadata.

A client of its own, so that no client is its own judge.
"""

import hashlib
from functools import cache

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

# What two copies of one object must have in common; the rest is a server's own.
HEADERS = ("ETag", "ContentType", "CacheControl", "ContentDisposition", "ContentEncoding")


class Store:
    def __init__(self, backends, access_key, secret_key):
        """`backends` are pairs of kind and address."""
        self.backends = backends
        self.credentials = {"aws_access_key_id": access_key, "aws_secret_access_key": secret_key}

    def of_kind(self, kind):
        return [address for known, address in self.backends if known == kind]

    @cache
    def client(self, address):
        config = Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1})
        return boto3.client(
            "s3", endpoint_url=f"http://{address}", region_name="us-east-1", config=config, **self.credentials
        )

    def read(self, address, bucket, key):
        """An object, or None."""
        try:
            answer = self.client(address).get_object(Bucket=bucket, Key=key)
        except ClientError as error:
            if error.response["Error"]["Code"] in ("NoSuchKey", "NoSuchBucket"):
                return None
            raise
        md5, length = hashlib.md5(), 0
        for piece in answer["Body"].iter_chunks(1 << 20):
            md5.update(piece)
            length += len(piece)
        metadata = {f"x-amz-meta-{name}": value for name, value in answer["Metadata"].items()}
        headers = {name: answer.get(name) for name in HEADERS}
        return {"Length": length, "MD5": md5.hexdigest()} | headers | metadata

    def keys(self, address, bucket):
        """The keys of a bucket, None where there is no such bucket."""
        try:
            pages = self.client(address).get_paginator("list_objects_v2").paginate(Bucket=bucket)
            return sorted(item["Key"] for page in pages for item in page.get("Contents", ()))
        except ClientError as error:
            if error.response["Error"]["Code"] == "NoSuchBucket":
                return None
            raise
