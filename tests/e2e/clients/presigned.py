"""Presigned URLs, by a client that knows nothing of S3."""

import http.client
from urllib.parse import urlsplit

from compare import Answer, Outcome


def fetch(method, url, body=None):
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
    try:
        connection.request(method, f"{parts.path}?{parts.query}", body)
        answer = connection.getresponse()
        read = answer.read()
    finally:
        connection.close()
    return Outcome([Answer(method, parts.path, answer.status, dict(answer.getheaders()))], None, read)
