"""Two storages that take everything, and clients that write through the gateway and count what comes of it."""

import socket
import socketserver
import threading
import time

gateway = ("127.0.0.1", 8080)
BACKENDS = (9001, 9002)
DEADLINE = 30
BODY = b"x" * 4096
# A client's pause between two writes: this is no test of how much the machine bears.
PAUSE = 0.005
# How long one upload takes that is sent piece by piece.
PIECES, PIECE_PAUSE = 40, 0.05


class _Storage(socketserver.StreamRequestHandler):
    timeout = DEADLINE

    def handle(self):
        try:
            while self.rfile.readline():
                length = 0
                while (line := self.rfile.readline()).strip():
                    name, _, value = line.partition(b":")
                    length = int(value) if name.lower() == b"content-length" else length
                self.rfile.read(length)
                self.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 0\r\nETag: "e"\r\n\r\n')
        except (TimeoutError, ConnectionError):
            pass


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128


def start_backends():
    for port in BACKENDS:
        server = _Server(("127.0.0.1", port), _Storage)
        threading.Thread(target=server.serve_forever, daemon=True).start()


def head(method, path, length, more=""):
    return f"{method} {path} HTTP/1.1\r\nHost: storage\r\nContent-Length: {length}\r\n{more}\r\n".encode()


def answer(connection):
    """The head of an answer without a body; empty if the connection ended before its first byte."""
    text = b""
    while b"\r\n\r\n" not in text:
        piece = connection.recv(65536)
        if not piece:
            if text:
                raise ConnectionError(f"an answer that breaks off: {text!r}")
            return b""
        text += piece
    return text


def connect():
    return socket.create_connection(gateway, timeout=DEADLINE)


def put(path="/bucket/key", more=""):
    """One write on a connection of its own: the head of its answer."""
    with connect() as connection:
        connection.sendall(head("PUT", path, len(BODY), more) + BODY)
        return answer(connection).decode()


class Traffic:
    """Clients of three kinds, for as long as the `with` lasts."""

    def __init__(self):
        self._over = threading.Event()
        self._lock = threading.Lock()
        self.failed = []
        self.good = self.retried = 0
        kinds = [self._fresh, self._fresh, self._kept, self._kept, self._slow]
        self._threads = [threading.Thread(target=self._run, args=(kind,)) for kind in kinds]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _run(self, kind):
        while not self._over.is_set():
            try:
                kind()
            except OSError as error:
                with self._lock:
                    self.failed.append(f"{kind.__name__}: {error!r}")

    def _count(self, text):
        with self._lock:
            if text.startswith(b"HTTP/1.1 200 "):
                self.good += 1
            else:
                self.failed.append(repr(text))

    def _fresh(self):
        """A connection for each write."""
        self._count(put("/bucket/fresh").encode())
        time.sleep(PAUSE)

    def _kept(self):
        """Many writes on one connection. One that ends while it is idle is no failure: clients try again."""
        with connect() as connection:
            used = False
            while not self._over.is_set():
                text = b""
                try:
                    connection.sendall(head("PUT", "/bucket/kept", len(BODY)) + BODY)
                    text = answer(connection)
                except ConnectionError:
                    if not used:
                        raise
                if not text and used:
                    with self._lock:
                        self.retried += 1
                    return
                self._count(text)
                used = True
                time.sleep(PAUSE)

    def _slow(self):
        """An upload that takes seconds, and so lives through what happens meanwhile."""
        with connect() as connection:
            connection.sendall(head("PUT", "/bucket/slow", PIECES * len(BODY)))
            for _ in range(PIECES):
                connection.sendall(BODY)
                time.sleep(PIECE_PAUSE)
            self._count(answer(connection))
