"""What a client saw, and whether two servers made it see the same.

A step of a scenario is one operation of a client. It is done directly against a backend (one of each kind
that the cluster has) and through the gateway, and what came of it is an `Outcome`. The rule: the outcome
through the gateway is that of one of the backends. After a write, every backend of the cluster must hold
what the reference of its kind holds.
"""

import difflib
import hashlib
import pprint
import re
import time
import traceback
from dataclasses import dataclass, field, replace

from differences import reason

# Not the same twice, or a matter of one connection.
VOLATILE = {
    "connection",
    "date",
    "keep-alive",
    "transfer-encoding",
    "x-akubra-request-id",
    "x-amz-id-2",
    "x-amz-request-id",
    "x-amzn-requestid",
}

TIMES = re.compile(
    r"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(\+\d\d:\d\d|Z)?"
    r"|\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d (GMT|\+0000))"
)

# The gateway answers with the first good reply; the other backends may be a moment behind.
REPLICAS_AGREE_WITHIN = 15


@dataclass(frozen=True)
class Place:
    """Where a client works: a server, a bucket, and how the client writes the two down."""

    name: str
    kind: str
    address: str
    """`127.0.0.1:PORT`"""
    domain: str
    style: str
    """`path` or `virtual`"""
    bucket: str
    access_key: str
    secret_key: str

    @property
    def endpoint(self):
        port = self.address.rpartition(":")[2]
        return f"http://{self.domain}:{port}" if self.style == "virtual" else f"http://{self.address}"

    def hide(self, text):
        """What is this place's own, and what is the time's, is taken out of a text."""
        port = self.address.rpartition(":")[2]
        text = text.replace(self.bucket, "BUCKET").replace(f":{port}", ":PORT")
        return TIMES.sub("TIME", text)


@dataclass(frozen=True)
class Answer:
    """One HTTP answer, as the client tells it."""

    method: str
    target: str
    """Path without query."""
    status: int
    headers: dict
    error: str = ""
    """Code and message of an S3 error, where the client tells them."""

    def at(self, place):
        """As it would be at any place, and what it was at this one only."""
        headers = {name.lower(): place.hide(value) for name, value in self.headers.items()}
        kept = {name: value for name, value in headers.items() if name not in VOLATILE}
        return replace(self, target=place.hide(self.target), headers=kept, error=place.hide(self.error))

    def is_like(self, other):
        one, another = dict(self.headers), dict(other.headers)
        # One side may know the length of a body that the other sends in chunks.
        if None in (one.get("content-length"), another.get("content-length")):
            one["content-length"] = another["content-length"] = None
        return replace(self, headers=one) == replace(other, headers=another)

    def order(self):
        return (self.target, self.method, self.status, int(self.headers.get("content-length", -1)))


@dataclass
class Outcome:
    """What came of one operation."""

    answers: list = field(default_factory=list)
    result: object = None
    """What the client returned or printed, error or not."""
    body: bytes = None
    """What it read."""

    def at(self, place):
        # A client may send several requests at once.
        answers = sorted((answer.at(place) for answer in self.answers), key=Answer.order)
        return Outcome(answers, hide_all(place, self.result), digest(self.body))

    def essence(self):
        """What of it is more than a server's style."""
        answers = sorted((answer.method, answer.status, answer.error.split(" ")[0]) for answer in self.answers)
        return answers, digest(self.body)

    def is_like(self, other):
        """Whether a client has no reason to care which of the two it got; both without their places."""
        return (
            (self.result, self.body, len(self.answers)) == (other.result, other.body, len(other.answers))
            and all(one.is_like(another) for one, another in zip(self.answers, other.answers))
        )

    def is_mixed_from(self, others):
        """Whether it is like others where one answer came from this server, the next from that."""
        known = [answer for other in others for answer in other.answers]
        return any((self.result, self.body) == (other.result, other.body) for other in others) and all(
            any(answer.is_like(other) for other in known) for answer in self.answers
        )


def hide_all(place, value):
    """`Place.hide` for all texts within."""
    if isinstance(value, str):
        return place.hide(value)
    if isinstance(value, dict):
        return {key: hide_all(place, item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [hide_all(place, item) for item in value]
    return value


def digest(body):
    return None if body is None else f"{len(body)} bytes, MD5 {hashlib.md5(body).hexdigest()}"


class Cannot(Exception):
    """The client has no way to do this, or the server has none: the reason."""


@dataclass
class Comparison:
    """Does the steps and remembers how they went."""

    client: str
    references: list
    """Places at backends, one of each kind."""
    through: Place
    """The place at the gateway."""
    store: object
    """Looks into backends, see `store.py`."""
    passed: int = 0
    failures: list = field(default_factory=list)
    skipped: list = field(default_factory=list)

    def step(self, name, action, writes=(), removes=(), alike=(), reads=None, expects=None):
        """Does one operation everywhere; `action` takes a place and returns an outcome.

        `writes` and `removes` are the keys that must then be, or not be, on every backend; those of `alike`
        must be what they are at the reference. `reads` is the body that the client must have read. `expects`
        takes the outcome through the gateway and says what is wrong with it, if anything.
        """
        name = f"{name} [{self.through.style}]"
        began = time.monotonic()
        try:
            references = [(place, action(place)) for place in self.references]
            through = action(self.through)
            problems = self.differences(references, through)
            problems += self.unexplained(name, references)
            for place, outcome in [*references, (self.through, through)]:
                if reads is not None and outcome.body != reads:
                    problems.append(f"{place.name}: read {digest(outcome.body)} instead of {digest(reads)}")
            if expects is not None and (wrong := expects(through)):
                problems.append(f"through the gateway: {wrong}")
            for key in [*writes, *removes, *alike]:
                wanted = None if key in alike else key in writes
                problems += self.divergences(key, wanted)
        except Cannot as reason:
            self.skipped.append((name, str(reason)))
            print(f"skip {name}: {reason}", flush=True)
            return
        except Exception:
            problems = [traceback.format_exc()]
        if problems:
            self.failures.append(name)
            print(f"FAIL {name}", *problems, sep="\n     ", flush=True)
        else:
            self.passed += 1
            statuses = " ".join(f"{answer.method} {answer.status}" for answer in through.answers)
            print(f"ok   {name}: {statuses} ({time.monotonic() - began:.1f} s)", flush=True)

    def differences(self, references, through):
        """Why the outcome through the gateway is that of no backend."""
        problems = []
        marked = [answer for answer in through.answers if "x-akubra-request-id" in lower(answer.headers)]
        if len(marked) != len(through.answers) or not marked:
            problems.append("an answer through the gateway lacks x-akubra-request-id")
        seen = through.at(self.through)
        wanted = [outcome.at(place) for place, outcome in references]
        if not any(seen.is_like(outcome) for outcome in wanted) and not seen.is_mixed_from(wanted):
            for (place, _), outcome in zip(references, wanted):
                problems += [f"{place.name} (-) and {self.through.name} (+):", *differing_lines(outcome, seen)]
        return problems

    def unexplained(self, name, references):
        """Why servers of different kinds may not differ like this."""
        kinds = {repr(outcome.essence()): place for place, outcome in references}
        if len(kinds) == 1 or reason(self.client, name):
            return []
        return [f"{place.name} differs from the other, which has no reason yet: {essence}" for essence, place in kinds.items()]

    def divergences(self, key, wanted):
        """Which backends do not hold what the reference of their kind holds."""
        deadline = time.monotonic() + REPLICAS_AGREE_WITHIN
        while problems := list(self.disagreeing(key, wanted)):
            if time.monotonic() > deadline:
                break
            time.sleep(0.02)
        return problems

    def disagreeing(self, key, wanted):
        for reference in self.references:
            model = self.store.read(reference.address, reference.bucket, key)
            if wanted is not None and (model is not None) != wanted:
                yield f"{reference.name} holds {model} as {key[:80]!r}"
            for backend in self.store.of_kind(reference.kind):
                held = self.store.read(backend, self.through.bucket, key)
                if held != model:
                    yield f"{backend} holds {held} as {key[:80]!r} instead of {model}"

    def listings(self):
        """At the end: the same keys everywhere, and no others."""
        for reference in self.references:
            model = self.store.keys(reference.address, reference.bucket)
            for backend in self.store.of_kind(reference.kind):
                keys = self.store.keys(backend, self.through.bucket)
                if keys != model:
                    self.failures.append("the same keys at the end")
                    print(f"FAIL {backend} has {keys} at the end instead of {model}")

    def report(self):
        print(f"{self.passed} passed, {len(self.failures)} failed, {len(self.skipped)} skipped")
        return not self.failures and self.passed > 0


def lower(headers):
    return {name.lower() for name in headers}


def differing_lines(one, other):
    texts = [pprint.pformat(outcome, width=100).splitlines() for outcome in (one, other)]
    return [line for line in difflib.ndiff(*texts) if line[0] in "-+"]
