"""Somebody who uses the page."""

from __future__ import annotations

import io
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

PATIENCE = 300_000
"""Milliseconds, on a machine that has other things to do."""

NOTED = """
  window.said = {};
  new MutationObserver(() => document.querySelectorAll("[id$=-status]").forEach((status) => {
    const all = (window.said[status.id] ??= []), now = status.innerText.trim();
    if (now !== all.at(-1)) all.push(now);
  })).observe(document, { subtree: true, childList: true, characterData: true });
"""
"""Keeps all that a status has said, of which a slow look sees but a part."""


class Visitor:
    """One open page. errors: of its console; outside: requests that leave the machine."""

    def __init__(self, page: Any, url: str, enter: Callable[[Any], None] | None = None) -> None:
        self.page, self.errors, self.outside = page, list[str](), list[str]()
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda e: self.errors.append(str(e)))
        page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        page.on("request", lambda r: self._requested(r.url, url))
        page.on("dialog", self._alerted)
        page.add_init_script(NOTED)
        page.goto(url, wait_until="commit")  # what is used is waited for, and nothing else
        if enter is not None:  # what is between the address and the page
            enter(page)
            self.errors.clear()
        page.wait_for_selector("#restore-go")

    def _requested(self, asked: str, url: str) -> None:
        if not asked.startswith((url, "data:", "blob:")):
            self.outside.append(asked)

    def _alerted(self, dialog: Any) -> None:
        self.errors.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def upload(self, path: Path, tab: str = "restore") -> str:
        """Give a measurement; what the page says to it."""
        before = self.said(tab)
        self.page.set_input_files(f"#{tab}-file input[type=file]", str(path))
        return self.until(lambda s: s != before, tab)

    def said(self, tab: str = "restore") -> str:
        line = f"#{tab}-status :is(.iv-note, .iv-busy, .iv-done, .iv-wrong)"
        return str(self.page.inner_text(line)).strip()

    def wrong(self, tab: str = "restore") -> bool:
        return bool(self.page.query_selector(f"#{tab}-status .iv-wrong"))

    def until(self, met: Callable[[str], Any], tab: str = "restore") -> str:
        """What the page says when it is what was waited for."""
        end = time.monotonic() + PATIENCE / 1000
        while not met(said := self.said(tab)):
            assert time.monotonic() < end, f"{said} {self.errors}"
            self.page.wait_for_timeout(50)
        return said

    def hear(self, met: Callable[[str], Any], tab: str = "restore") -> None:
        """Wait until the page has said what was waited for, which may be gone by now."""
        end = time.monotonic() + PATIENCE / 1000
        while not any(map(met, said := self.page.evaluate(f"window.said['{tab}-status']"))):
            assert time.monotonic() < end, f"{said} {self.errors}"
            self.page.wait_for_timeout(50)

    def choose(self, name: str, text: str) -> None:
        """Choose in a drop-down list."""
        self.page.click(f"#{name} input")
        self.page.click(f'ul[role=listbox] li:has-text("{text}")')

    def open(self, title: str) -> None:
        """Open a part that is folded."""
        self.page.click(f'.tabitem:visible button:has-text("{title}")')

    def quick(self, want: str = "samples", samples: int = 2, steps: int = 2) -> None:
        """Few samples in few steps."""
        self.open("How it is run")
        self.choose("restore-want", want)
        self.page.fill("#restore-samples input", str(samples))
        assert self.page.input_value("#restore-steps :is(input, textarea)") == ""
        self.page.fill("#restore-steps :is(input, textarea)", str(steps))

    def download(self) -> zipfile.ZipFile:
        """The zip of the results."""
        with self.page.expect_download() as found:
            self.page.click("#restore-zip")
        return zipfile.ZipFile(io.BytesIO(Path(found.value.path()).read_bytes()))
