"""The part of a tab that repeats a run from its files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from invdiff.app import words
from invdiff.app.asked import AskedAgain
from invdiff.app.intake import added_run, harmless
from invdiff.app.site import QUIET, Site
from invdiff.app.visits import Visit


class Again:
    """A field for the files of a run, and a button."""

    def __init__(self, site: Site, tab: str) -> None:
        self.site, self.tab = site, tab

    def draw(self) -> None:
        """The components."""
        import gradio as gr

        with gr.Accordion("Repeat a run", open=False):
            gr.Markdown("From the zip of a run, or its run.json and run.safetensors together.")
            self.files = gr.File(
                label="run.json and run.safetensors, or a zip", file_count="multiple", height=110,
                elem_id=f"{self.tab}-run",
            )  # fmt: skip
            self.button = gr.Button("Repeat this run", elem_id=f"{self.tab}-again")

    def connect(self, said: Any, repeat: Callable[..., Any], made: list[Any]) -> None:
        """said: where failures are told. repeat: what the button does; made: what that changes."""
        event, self.said = self.site.event, said
        self.files.upload(event(self._uploaded, said), self.files, [said, self.files], **QUIET)
        self.button.click(event(repeat, said), self.files, made, **QUIET)

    def _uploaded(self, visit: Visit, paths: list[str] | None) -> dict[Any, Any]:
        """The files of a run take the place of those of another; the page says which it has."""
        key = f"{self.tab}.run"
        kept = visit.kept[key] = added_run(paths or [], visit.kept.get(key, ()))
        names = " and ".join(harmless(Path(path).name) for path in kept)
        return {self.files: kept, self.said: words.status(f"{names} arrived, to be repeated.")}

    def asked(self, visit: Visit, paths: list[str] | None) -> AskedAgain:
        """The run that is repeated. Raises InvdiffError where its files are no run."""
        folder = self.site.intake.take_run(paths or [], visit.room("again"))
        return AskedAgain(str(folder), str(visit.folder / f"restored-again-{self.tab}"))
