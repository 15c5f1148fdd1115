"""A reverse proxy that serves a page under a path, as nginx does with `proxy_pass`."""

from __future__ import annotations

import contextlib
import http.client
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

HOPS = {"connection", "keep-alive", "transfer-encoding", "content-length", "host", "date", "server"}
"""Headers of one connection, which are not passed on."""


class Server(ThreadingHTTPServer):
    """Waits at its end for all streams, which end with the page."""

    daemon_threads = False
    request_queue_size = 128  # a browser asks for many files at once; 5 wait by default

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that leaves in the middle is nothing to tell of."""


class Late:
    """What happens to the answers of a page behind a slow proxy: the message that ends their first
    stream is held back until one more event was told, and the end of each stream by .5 s.
    held: whether the first message is held back."""

    def __init__(self) -> None:
        self.first = threading.Semaphore()
        self.held, self.told = threading.Event(), threading.Event()

    def pass_on(self, part: bytes, write: Callable[[bytes], object]) -> None:
        at = part.find(b"close_stream")
        if at >= 0 and self.first.acquire(blocking=False):
            start = part.rfind(b"data:", 0, at)  # an answer before it may lie in the same part
            write(part[:start])
            self.held.set()
            self.told.wait()
            part = part[start:]
        write(part)

    def answered(self) -> None:
        """The page has been told that its event was taken."""
        if self.held.is_set():
            threading.Timer(0.5, self.told.set).start()  # when the page has read so


@contextlib.contextmanager
def proxied(url: str, path: str, late: Late | None = None) -> Iterator[str]:
    """The address under which `path` leads to `url`; nothing else is there. path: as /invdiff."""
    behind = urlsplit(url)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not self.path.startswith(f"{path}/"):
                return self.send_error(404)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {k: v for k, v in self.headers.items() if k.lower() not in HOPS}
            headers |= {"X-Forwarded-Host": self.headers["Host"], "X-Forwarded-Proto": "http"}
            with contextlib.closing(http.client.HTTPConnection(behind.netloc)) as there:
                there.request(self.command, self.path[len(path) :], body, headers)
                answer = there.getresponse()
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in HOPS:
                        self.send_header(name, value)
                self.end_headers()  # of HTTP/1.0: the body ends with the connection
                stream = "/queue/data" in self.path
                while part := answer.read1(65536):
                    if stream and late:
                        late.pass_on(part, self.wfile.write)
                    else:
                        self.wfile.write(part)
                if late and "/queue/join" in self.path:
                    late.answered()
                if late and stream:
                    time.sleep(0.5)

        do_POST = do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}{path}/"
        finally:
            if late:
                late.told.set()
            server.shutdown()
