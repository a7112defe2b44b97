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

# A key of which the backends hold what they hold.
ALIKE = object()

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
    result: dict = None
    """What the client returned or printed, error or not; None for a request without a client."""
    body: bytes = None
    """What it read."""

    def at(self, place):
        # A client may send several requests at once.
        answers = sorted((answer.at(place) for answer in self.answers), key=Answer.order)
        return Outcome(answers, hide_all(place, self.result), digest(self.body))

    def problems(self, good, reads):
        """What is wrong with it, by itself."""
        if reads is not None and self.body != reads:
            yield f"read {digest(self.body)} instead of {digest(reads)}"
        if good is not None and good != self.is_good():
            yield f"{'failed' if good else 'was not refused'}: {self.result}, {self.answers}"

    def is_good(self):
        """Whether the client was content."""
        if self.result is None:
            return all(answer.status < 300 for answer in self.answers)
        return not self.result.get("exit") and "Error" not in self.result

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


def held(body, metadata):
    """What a backend holds of an object that was written."""
    wanted = {"MD5": hashlib.md5(body).hexdigest(), "Length": len(body)}
    return wanted | {f"x-amz-meta-{name}": value for name, value in (metadata or {}).items()}


def fits(model, wanted):
    """Whether a backend holds what it must: None is nothing."""
    if wanted is ALIKE or wanted is None or model is None:
        return wanted is ALIKE or wanted is model
    return wanted.items() <= model.items()


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
    failed: int = 0
    skipped: int = 0

    def step(
        self, name, action, *, good=True, writes=None, metadata=None, removes=(), alike=(), reads=None, check=None
    ):
        """Does one operation everywhere; `action` takes a place and returns an outcome.

        `good` says whether the client must be content, None that it does not matter. `writes` are the bodies,
        by key, that every backend must then hold, with `metadata`; it must hold nothing under the keys of
        `removes`, and under those of `alike` whatever the reference holds. `reads` is the body that the client
        must have read. `check` takes the outcome through the gateway and says what is wrong with it, if
        anything.
        """
        name = f"{name} [{self.through.style}]"
        began = time.monotonic()
        wanted = {key: held(body, metadata) for key, body in (writes or {}).items()}
        wanted |= dict.fromkeys(removes) | dict.fromkeys(alike, ALIKE)
        try:
            references = [(place, action(place)) for place in self.references]
            through = action(self.through)
            problems = self.differences(references, through) + self.unexplained(name, references)
            for place, outcome in [*references, (self.through, through)]:
                problems += [f"{place.name}: {problem}" for problem in outcome.problems(good, reads)]
            if check is not None and (wrong := check(through)):
                problems.append(f"{self.through.name}: {wrong}")
            for key, model in wanted.items():
                problems += self.divergences(key, model)
        except Cannot as why:
            self.skipped += 1
            print(f"skip {name}: {why}", flush=True)
            return
        except Exception:
            problems = [traceback.format_exc()]
        statuses = [] if problems else [f"{answer.method} {answer.status}" for answer in through.answers]
        self.note(name, problems, f"{' '.join(statuses)} ({time.monotonic() - began:.1f} s)")

    def note(self, name, problems, remark=""):
        """A step has ended."""
        if problems:
            self.failed += 1
            print(f"FAIL {name}", *problems, sep="\n     ", flush=True)
        else:
            self.passed += 1
            print(f"ok   {name}: {remark}", flush=True)

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
        essences = {repr(outcome.essence()): place for place, outcome in references}
        if len(essences) == 1 or reason(self.client, name):
            return []
        return [f"{place.name}, unlike elsewhere and for no known reason: {at}" for at, place in essences.items()]

    def divergences(self, key, wanted):
        """Which backends do not hold what they must."""
        deadline = time.monotonic() + REPLICAS_AGREE_WITHIN
        while problems := list(self.disagreeing(key, wanted)):
            if time.monotonic() > deadline:
                break
            time.sleep(0.02)
        return problems

    def disagreeing(self, key, wanted):
        for reference in self.references:
            model = self.store.read(reference.address, reference.bucket, key)
            if not fits(model, wanted):
                yield f"{reference.name}: {model} as {key[:80]!r} instead of {wanted}"
            for backend in self.store.of_kind(reference.kind):
                stored = self.store.read(backend, self.through.bucket, key)
                if stored != model:
                    yield f"{backend}: {stored} as {key[:80]!r} instead of {model}"

    def same_keys(self):
        """At the end: the same keys everywhere, and no others."""
        problems = []
        for reference in self.references:
            model = self.store.keys(reference.address, reference.bucket)
            for backend in self.store.of_kind(reference.kind):
                keys = self.store.keys(backend, self.through.bucket)
                if keys != model:
                    problems.append(f"{backend} has {keys} instead of {model}")
        self.note(f"the same keys at the end [{self.through.style}]", problems, f"{len(model)}")

    def report(self):
        print(f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped")
        return not self.failed and self.passed > 0


def lower(headers):
    return {name.lower() for name in headers}


def differing_lines(one, other):
    texts = [pprint.pformat(outcome, width=100).splitlines() for outcome in (one, other)]
    return [line for line in difflib.ndiff(*texts) if line[0] in "-+"]
