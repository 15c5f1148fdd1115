"""Notes which visit has which copy of a file, from what the page and the server tell each other."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qs

from invdiff.app.visits import Visits

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
PATH = re.compile(r'"path":\s*("(?:[^"\\]|\\.)*")')
"""A file in the JSON of either side."""
LONGEST = 8192
"""Characters of a path, at most; so much of a part of a stream is kept for the next one."""


class Ledger:
    """ASGI middleware that reads along and changes nothing."""

    def __init__(self, app: Any, visits: Visits) -> None:
        self.app, self.visits = app, visits

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        path = scope.get("path", "") if scope["type"] == "http" else ""
        if path.endswith("/queue/join"):
            receive = self._asking(receive)
        elif path.endswith("/queue/data"):
            names = parse_qs(scope.get("query_string", b"").decode()).get("session_hash", [])
            send = self._answering(send, names[0] if names else "")
        await self.app(scope, receive, send)

    def _asking(self, receive: Receive) -> Receive:
        body = bytearray()

        async def read() -> Message:
            message = await receive()
            if message["type"] == "http.request":
                body.extend(message.get("body", b""))
                if not message.get("more_body"):
                    self._note(body.decode("utf-8", "replace"))
            return message

        return read

    def _note(self, text: str) -> None:
        try:
            name = json.loads(text).get("session_hash")
        except (ValueError, AttributeError):
            return
        if isinstance(name, str):
            self._claim(name, text)

    def _answering(self, send: Send, name: str) -> Send:
        tail = ""

        async def write(message: Message) -> None:
            nonlocal tail
            if name and message["type"] == "http.response.body":
                text = tail + message.get("body", b"").decode("utf-8", "replace")
                self._claim(name, text)
                tail = text[-LONGEST:]
            await send(message)

        return write

    def _claim(self, name: str, text: str) -> None:
        for found in PATH.findall(text):
            self.visits.claim(name, json.loads(found))
