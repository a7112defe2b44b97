"""What load-tests/RESULTS.md says."""

import statistics

from .measure import CASES, Result


class Sheet:
    def __init__(self, options, root):
        self.options = options
        self.root = root
        self.results = {}
        self.failures = []
        self.seconds = 0

    def add(self, case, peer, run):
        self.results.setdefault((case.name, peer), Result([], {})).runs.append(run)

    def add_calls(self, case, peer, calls):
        self.results[case.name, peer].calls = calls

    def fail(self, text):
        self.failures.append(text)

    def took(self, seconds):
        self.seconds = seconds

    def kept(self):
        return not self.failures

    def ratio(self, case, peer, other):
        ours, theirs = self.results.get((case, peer)), self.results.get((case, other))
        if not ours or not theirs:
            return None
        return ours.median("cpu") / theirs.median("cpu")

    def text(self):
        lines = []
        for case in CASES:
            of_case = {peer: result for (name, peer), result in self.results.items() if name == case.name}
            if not of_case:
                continue
            lines += [
                f"## {case.title}, {case.connections} connections, {case.requests} requests a run",
                "",
                "| | CPU ms per request (min..max) | user / system | to pass-through | to nginx-mirror | requests/s |"
                " p50 ms | p99 ms | peak MiB | system calls |",
                "|---|---|---|---|---|---|---|---|---|---|",
            ]
            for peer, result in of_case.items():
                low, high = result.spread("cpu")
                ratios = [self.ratio(case.name, peer, other) for other in ("pass-through", "nginx-mirror")]
                ratios = [f"{ratio:.2f}" if ratio else "" for ratio in ratios]
                calls = f"{result.calls['total']:.1f}" if result.calls else ""
                lines.append(
                    f"| {peer} | {result.median('cpu'):.4f} ({low:.4f}..{high:.4f}) "
                    f"| {result.median('user'):.3f} / {result.median('system'):.3f} "
                    f"| {ratios[0]} | {ratios[1]} | {result.median('per_second'):.0f} "
                    f"| {result.median('p50'):.2f} | {result.median('p99'):.2f} "
                    f"| {result.median('peak') / 2**20:.0f} | {calls} |"
                )
            lines.append("")
        lines += [f"Failed: {failure}" for failure in self.failures]
        return "\n".join(lines) + "\n"
