"""The page for others: behind a password, and under a path of a reverse proxy."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from reverse_proxy import Late, proxied
from serving import Served, answer, serve
from visitor import PATIENCE, Visitor

import invdiff.app

pytestmark = pytest.mark.filterwarnings("ignore")


def test_a_password_and_a_path(
    chromium: Any, photo: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Nothing is given before the password; after it a job is done, all of it under the path."""
    options = "--auth", "ann:o:ne", "--root-path", "/invdiff"

    def enter(page: Any) -> None:
        for word in ("two", "o:ne"):
            page.locator("input[type=password]").wait_for()
            page.locator("input:not([type=password]):visible").first.fill("ann")
            page.locator("input[type=password]").fill(word)
            page.get_by_role("button", name="Login").click()
            if word == "two":
                page.get_by_text("Incorrect", exact=False).first.wait_for()
                assert not page.query_selector("#restore-go")

    with contextlib.ExitStack() as proxy, serve(tmp_path_factory.mktemp("shut"), *options) as page:
        url = proxy.enter_context(proxied(page.url, "/invdiff"))
        for door in ("config", "gradio_api/info", f"gradio_api/file={page.folder}"):
            assert answer(url + door)[0] == 401 and answer(page.url + door)[0] == 401, door
        assert answer(f"{url}gradio_api/call/tasks", b'{"data": []}')[0] == 401
        context = chromium.new_context()
        v = Visitor(context.new_page(), url, enter)
        assert "ready" in v.upload(photo)
        v.choose("restore-task", "(denoise)")
        v.page.fill("#restore-denoise-noise :is(input, textarea)", "0.1")
        v.quick(samples=1, steps=1)
        v.page.click("#restore-go")
        v.until(lambda s: s == "Done." or v.wrong())
        assert not v.wrong(), v.said()
        with v.download() as inside:
            assert "sample-1.png" in inside.namelist()
        assert v.page.evaluate("document.querySelector('#restore-estimate img').naturalWidth") == 32
        assert v.errors == [] and v.outside == []
        context.close()


def test_what_is_told_while_the_answers_end_is_answered(
    chromium: Any, served: Served, photo: Path
) -> None:
    """The stream of the answers to the page's own first questions ends while a file arrives; the
    page's library alone would wait for ever."""
    late = Late()
    with (
        proxied(served.url.rstrip("/"), "", late) as url,
        chromium.new_context() as context,
    ):
        v = Visitor(context.new_page(), url)
        assert late.held.wait(PATIENCE / 1000)
        assert "ready" in v.upload(photo)
        assert v.errors == []


ENDS = {
    "message": """out.enqueue(word('"close_stream"'))""",
    "split message": """out.enqueue(word('"close_')); out.enqueue(word('stream"'))""",
    "end": "out.close()",
    "error": "out.error(new Error('gone'))",
    "abort": "stop.abort()",
    "left": "reader.cancel()",
}
"""How a stream can end, in the words of a browser."""


@pytest.mark.parametrize("late", [True, False])
@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_every_end_of_the_answers_is_seen(chromium: Any, end: str, late: bool) -> None:
    """The page presses its hidden button where an event was told before the end, and only there;
    again while no stream opens."""
    script = (Path(invdiff.app.__file__).parent / "page.js").read_text()
    with chromium.new_context() as context:
        page = context.new_page()
        page.clock.install(time=0)
        page.clock.pause_at(1)

        def pressed(later: int) -> int:
            """How often the button was pressed when so many milliseconds have gone by."""
            page.clock.run_for(later)
            return int(page.evaluate("new Promise((r) => r(pressed))"))

        page.set_content("<button id=wake onclick='pressed += 1'></button>")
        page.evaluate("""() => {
            window.pressed = 0;
            window.word = (text) => new TextEncoder().encode(text);
            const stream = () => new ReadableStream({ start: (o) => { window.out = o; } });
            window.fetch = async (url) => new Response(url.includes("data") ? stream() : "");
        }""")
        page.evaluate(script)
        page.evaluate(
            """async (late) => {
            window.stop = new AbortController();
            await fetch("/queue/join");
            const answer = await fetch("/queue/data", { signal: stop.signal });
            window.reader = answer.body.getReader();
            const read = () => reader.read().then((r) => r.done || read(), () => null);
            read();
            if (late) await fetch("/queue/join");
        }""",
            late,
        )
        assert pressed(400) == 0
        page.evaluate(f"{{ {end}; }}")
        assert [pressed(199), pressed(1), pressed(999), pressed(1)] == [0, late, late, 2 * late]
        page.evaluate("fetch('/queue/data')")
        assert pressed(5000) == 2 * late
