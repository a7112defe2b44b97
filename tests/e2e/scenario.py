"""What every client does, in the words of `clients/__init__.py`.

Path style has all of it; virtual-host style what the addressing can change. The keys are what goes wrong
when a path is decoded or encoded once too often, or is cleaned up.
"""

import random
from dataclasses import replace
from urllib.parse import unquote

KEYS = {
    "a plain key": "folder/plain.txt",
    "a key with spaces": "with space/a b  c.txt",
    "a unicode key": "grün/日本語/😀.txt",
    "a key with plus": "a+b=c&d.txt",
    "a key with %2F": "a%2Fb%20c%.txt",
    "a key with //": "double//slash.txt",
    "a key with delimiters": "it's (a);@$,!~*:?x=#y.txt",
}

BIG = 64 << 20


def long_key():
    """1,024 bytes, no segment longer than a file's name can be."""
    key = "/".join(["ключ" * 25] * 5)
    return key + "/" + "k" * (1023 - len(key.encode()))


def noise(length, seed):
    return random.Random(seed).randbytes(length)


class Scenario:
    def __init__(self, run, client, folder):
        self.run = run
        self.client = client
        self.source = folder / "source"
        self.bodies = {}
        """What was put, by key."""

    def path_style(self):
        self.buckets()
        self.objects(KEYS)
        self.put_get_head("an empty object", "empty", b"")
        self.metadata()
        self.ranges()
        self.listings()
        self.copies()
        self.presigned()
        self.one_large_put()
        self.refusals()
        self.deletes()
        self.run.same_keys()
        self.multipart()

    def virtual_host_style(self):
        self.buckets()
        self.objects(["a plain key", "a key with spaces", "a unicode key", "a key with %2F", "a key with //"])
        self.ranges()
        self.listings()
        self.copies()
        self.presigned()
        self.deletes()
        self.run.same_keys()

    def long_keys(self):
        """For servers that do not make files' names of keys."""
        self.buckets()
        self.objects(["a plain key", "a key with //"])
        self.put_get_head("a key of 1,024 bytes", long_key(), noise(1000, "long"))
        self.listings()

    def buckets(self):
        self.run.step("make a bucket", self.client.make_bucket)
        self.run.step("list an empty bucket", self.client.list)

    def objects(self, names):
        for length, name in enumerate(names, 1000):
            self.put_get_head(name, KEYS[name], noise(length, name))

    def put_get_head(self, name, key, body):
        client = self.client
        self.bodies[key] = body
        self.put(name, key, body)
        self.run.step(f"get {name}", lambda at: client.get(at, key), reads=body)
        self.run.step(f"head {name}", lambda at: client.head(at, key))

    def put(self, name, key, body, metadata=None, **more):
        self.source.write_bytes(body)
        self.run.step(
            f"put {name}",
            lambda at: self.client.put(at, key, self.source, metadata=metadata, **more),
            writes={key: body},
            metadata=metadata,
            check=sends_one_put(key),
        )

    def metadata(self):
        client, key = self.client, "metadata.png"
        self.put("metadata", key, noise(500, "metadata"), metadata=client.METADATA, content_type="image/png")
        self.run.step("head metadata", lambda at: client.head(at, key))
        # Servers may refuse this; then it must be refused through the gateway, too.
        self.run.step(
            "put metadata as raw UTF-8",
            lambda at: client.put(at, "raw", self.source, metadata=client.raw_metadata()),
            good=None,
            alike=["raw"],
        )

    def ranges(self):
        client, key, body = self.client, "ranges", noise(50_000, "ranges")
        self.put("for ranges", key, body)
        self.run.step("get a range", lambda at: client.get_range(at, key, 1000, 1999), reads=body[1000:2000])
        self.run.step("get the rest", lambda at: client.get_range(at, key, 49_000), reads=body[49_000:])
        self.run.step("get one byte", lambda at: client.get_range(at, key, 0, 0), reads=body[:1])

    def listings(self):
        self.run.step("list the top", self.client.list)
        self.run.step("list a folder", lambda at: self.client.list(at, "folder/"))
        self.run.step("list all", self.client.list_all)

    def copies(self):
        for name in ("a plain key", "a unicode key", "a key with %2F"):
            source, key = KEYS[name], f"copies/{KEYS[name]}"
            copy = lambda at, source=source, key=key: self.client.copy(at, source, key)
            self.run.step(f"copy {name}", copy, writes={key: self.bodies[source]})

    def presigned(self):
        client, body = self.client, noise(1000, "presigned")
        for name in ("a key with spaces", "a key with %2F"):
            key = f"presigned/{KEYS[name]}"
            put = lambda at, key=key: client.presigned_put(at, key, body)
            self.run.step(f"presigned PUT of {name}", put, writes={key: body})
        key = KEYS["a key with spaces"]
        self.run.step("presigned GET", lambda at: client.presigned_get(at, key), reads=self.bodies[key])

    def one_large_put(self):
        body = noise(BIG, "big")
        self.put("64 MiB", "big", body)
        self.run.step("get 64 MiB", lambda at: self.client.get(at, "big"), reads=body)

    def refusals(self):
        client = self.client
        self.source.write_bytes(b"refused")
        for name, action in [
            ("get a missing object", lambda at: client.get(at, "missing")),
            ("head a missing object", lambda at: client.head(at, "missing")),
            ("delete a missing object", lambda at: client.delete(at, "missing")),
            ("copy a missing object", lambda at: client.copy(at, "missing", "copy")),
            ("get past the end", lambda at: client.get_range(at, "ranges", 60_000)),
            ("list a missing bucket", lambda at: client.list(replace(at, bucket="no-such-bucket"))),
        ]:
            # Not all clients take these for failures.
            self.run.step(name, action, good=None)
        for name, action in [
            ("get", lambda at: client.get(at, "ranges")),
            ("put", lambda at: client.put(at, "refused", self.source)),
            ("delete", lambda at: client.delete(at, "ranges")),
        ]:
            refused = lambda at, action=action: action(replace(at, secret_key="wrong"))
            self.run.step(f"{name} with a wrong secret", refused, good=False)

    def deletes(self):
        client, key = self.client, KEYS["a key with spaces"]
        self.run.step("delete an object", lambda at: client.delete(at, key), removes=[key])
        keys = [f"copies/{KEYS[name]}" for name in ("a plain key", "a unicode key", "a key with %2F")]
        self.run.step("delete several", lambda at: client.delete_many(at, "copies/", keys), removes=keys)

    def multipart(self):
        """Kept out of the comparison of replicas: the upload goes to one backend, and is recorded."""
        body = noise((5 << 20) + 1000, "multipart")
        self.source.write_bytes(body)
        self.run.step("put in parts", lambda at: self.client.put_multipart(at, "multipart", self.source))
        self.run.step("get what came in parts", lambda at: self.client.get(at, "multipart"), reads=body)


def sends_one_put(key):
    """The upload is one request, for this very key."""

    def check(outcome):
        wanted = [answer for answer in outcome.answers if answer.method in ("PUT", "POST")]
        sent = [(answer.method, unquote(answer.target)) for answer in wanted]
        good = len(sent) == 1 and sent[0][0] == "PUT" and sent[0][1].endswith(f"/{key}")
        return None if good else f"not one PUT of {key!r} but {sent}"

    return check
