"""The answers that botocore sees, by its own events: boto3 and awscli are built on it."""

from urllib.parse import urlsplit

from compare import Answer


class Tap:
    """Collects the answers of one operation at a time."""

    def __init__(self):
        self.requests = []
        self.answers = []

    def attach(self, events):
        events.register_first("before-send.s3", self.sending)
        events.register_first("response-received.s3", self.received)

    def sending(self, request, **_):
        self.requests.append((request.method, urlsplit(request.url).path))

    def received(self, response_dict, parsed_response, **_):
        method, path = self.requests[-1]
        if response_dict is None:
            return
        error = (parsed_response or {}).get("Error", {})
        self.answers.append(
            Answer(
                method=method,
                target=path,
                status=response_dict["status_code"],
                headers=dict(response_dict["headers"]),
                error=" ".join(error.get(name) or "" for name in ("Code", "Message")).strip(),
            )
        )

    def take(self):
        answers, self.answers, self.requests = self.answers, [], []
        return answers


def in_order(result):
    """Servers name what they deleted in any order."""
    if isinstance(result, dict) and "Deleted" in result:
        return result | {"Deleted": sorted(result["Deleted"], key=lambda item: item["Key"])}
    return result
