"""What all tabs share: visits, workers and uploads; and how events of the page reach them."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from invdiff.app import words
from invdiff.app.intake import Intake
from invdiff.app.messages import Message
from invdiff.app.pool import Pool
from invdiff.app.settings import AppOptions
from invdiff.app.visits import Visit, Visits
from invdiff.core import InvdiffError
from invdiff.core.errors import sentence

QUIET = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}
"""Of events that belong to the page alone. Jobs wait in the line of the pool, not elsewhere."""


@dataclass(eq=False)
class Site:
    """The page that is served."""

    options: AppOptions
    visits: Visits
    pool: Pool
    intake: Intake

    def visit(self, request: Any) -> Visit:
        """The visit that an event belongs to."""
        return self.visits.of(str(request.session_hash))

    def wrong(self, error: BaseException, visit: Visit) -> str:
        """The sentence on a failure, without the names of private folders."""
        return words.without_folder(sentence(error), visit.folder)

    def event(self, answer: Callable[..., Any], shown: Any) -> Callable[..., Any]:
        """A handler of answer(visit, *values), which gives, or yields, {component: value}.

        A failure is shown in `shown`, as one sentence. An argument `click` is where was clicked.
        """
        import gradio as gr

        clicked = "click" in inspect.signature(answer).parameters

        def handler(request: Any, *values: Any) -> Iterator[Any]:
            visit = self.visit(request)
            try:
                found = answer(visit, *values)
                if inspect.isgenerator(found):
                    yield from found
                else:
                    yield found
            except Exception as error:
                yield {shown: words.status(self.wrong(error, visit), "wrong")}

        def at(request: Any, click: Any, *values: Any) -> Iterator[Any]:
            yield from handler(request, click.index, *values)

        handler.__annotations__ = {"request": gr.Request}
        at.__annotations__ = {"request": gr.Request, "click": gr.SelectData}
        return at if clicked else handler

    def stops(self, tab: str) -> Callable[..., None]:
        """A handler that stops a tab's job. It shows nothing: its answer may come after the job's
        last word, and would hide it. The job itself says that it is stopping."""
        import gradio as gr

        def handler(request: Any) -> None:
            self.visit(request).stop(tab).set()

        handler.__annotations__ = {"request": gr.Request}
        return handler

    def run(self, visit: Visit, tab: str, asked: Any) -> Iterator[Message | None]:
        """The messages of a job of a visit's tab, of which there is one at a time."""
        stop = visit.stop(tab)
        busy = visit.kept.setdefault(f"{tab}.busy", threading.Lock())
        if not busy.acquire(blocking=False):
            raise InvdiffError("This tab has a job already; stop it, or wait for its end.")
        stop.clear()
        try:
            for message in self.pool.run(asked, lambda: stop.is_set() or visit.closed.is_set()):
                yield message
                if visit.closed.is_set():
                    return
        finally:
            busy.release()
