"""A page that a process of its own serves, in which no socket leads elsewhere."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

LOCK = """
import os, socket, sys
if os.environ.get("INVDIFF_TEST_CALLS"):
    def note(what, host):
        if str(host) not in ("127.0.0.1", "::1", "localhost", "None", ""):
            with open(os.environ["INVDIFF_TEST_CALLS"], "a") as file:
                file.write(f"{what} {host}\\n")
            raise OSError(f"blocked: {host}")
    real_connect, real_lookup = socket.socket.connect, socket.getaddrinfo
    def connect(self, address):
        if isinstance(address, tuple):
            note("connect", address[0])
        return real_connect(self, address)
    def lookup(host, *more, **told):
        note("look up", host)
        return real_lookup(host, *more, **told)
    socket.socket.connect, socket.getaddrinfo = connect, lookup
"""
"""A sitecustomize.py, which every Python process of the page imports first."""


@dataclass
class Served:
    """The page under test. calls: what its processes asked of other hosts, a line each."""

    url: str
    folder: Path
    pid: int
    calls: Path

    @property
    def files(self) -> list[Path]:
        """All that lies in its private folder."""
        return [p for p in self.folder.rglob("*") if p.is_file() and p.name != "page.log"]


@contextlib.contextmanager
def serve(folder: Path, *options: str) -> Iterator[Served]:
    """`invdiff app` on a free port, with some options, in a process and a folder of its own."""
    if find_spec("gradio") is None:
        pytest.skip("gradio is not installed, so the page is NOT tested: pip install '.[app]'")
    (folder / "lock").mkdir()
    (folder / "lock" / "sitecustomize.py").write_text(LOCK)
    (folder / "tmp").mkdir()
    calls, log = folder / "calls", folder / "page.log"
    calls.touch()
    source = str(Path(__file__).parents[2] / "src")
    path = os.pathsep.join([str(folder / "lock"), source])
    told = {
        "PYTHONPATH": path, "TMPDIR": str(folder / "tmp"), "INVDIFF_TEST_CALLS": str(calls),
        "INVDIFF_CACHE": "off", "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1",
    }  # fmt: skip
    command = [sys.executable, "-m", "invdiff", "app", "--port", "0", *options]
    with log.open("w") as out:
        process = subprocess.Popen(
            command, env=os.environ | told, stdout=out, stderr=out, cwd=folder
        )
    try:
        while "page " not in (said := log.read_text()):
            assert process.poll() is None, said
            time.sleep(0.1)
        yield Served(said.split()[1], folder / "tmp", process.pid, calls)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(120)
    assert process.returncode == 0, log.read_text()
    assert calls.read_text() == ""  # nothing was asked of other hosts
    assert not [p for p in (folder / "tmp").iterdir() if p.name.startswith("invdiff-page-")]


def answer(
    url: str,
    body: bytes | None = None,
    kind: str = "application/json",
    headers: dict[str, str] | None = None,
) -> tuple[int, bytes]:
    """(status, body) of an answer; the body of a refusal is not read. Its connection is closed.
    The status is 0 where the server hung up while it was still told."""
    asked = urllib.request.Request(url, body, {"Content-Type": kind} | (headers or {}))
    try:
        with urllib.request.urlopen(asked, timeout=120) as found:
            return found.status, found.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, b""
    except ConnectionError:
        return 0, b""
    except urllib.error.URLError as error:
        assert isinstance(error.reason, ConnectionError), error
        return 0, b""
