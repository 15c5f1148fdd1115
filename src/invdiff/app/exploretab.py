"""The tab that shows what a measurement leaves open: samples that move, and their directions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from invdiff.app import shown, words
from invdiff.app.site import QUIET, Site
from invdiff.app.visits import Visit
from invdiff.core import InvdiffError
from invdiff.restoration.directions import Directions, directions
from invdiff.restoration.restored import Restoration

NAME = "explore"
MOST = 5
"""Directions that have a slider."""
REACH = 3.0
"""Standard deviations to either side."""
ABOUT = (
    "Samples differ in what the measurement leaves open. Each slider goes along one direction in "
    "which they differ most, in standard deviations from their mean. K samples have K - 1 "
    "directions; more samples give truer ones."
)


class ExploreTab:
    """Samples and directions of the last restoration of the visit."""

    def __init__(self, site: Site) -> None:
        self.site = site

    def draw(self, tab: Any) -> None:
        """Everything in the tab. tab: that is selected."""
        import gradio as gr

        png = {
            "format": "png", "interactive": False, "buttons": ["download", "fullscreen"],
            "elem_classes": "iv-pixels", "height": 320,
        }  # fmt: skip
        with gr.Row():
            with gr.Column(min_width=300):
                gr.Markdown(ABOUT)
                self.load = gr.Button(
                    "Take the last restoration", variant="primary", elem_id=f"{NAME}-load"
                )
                self.said = gr.HTML(
                    words.status("Restore something with two samples or more first."),
                    elem_id=f"{NAME}-status",
                )
                self.sliders = [
                    gr.Slider(
                        -REACH, REACH, 0, step=0.1, visible=False, label=f"direction {i + 1}",
                        elem_id=f"{NAME}-direction-{i + 1}",
                    )
                    for i in range(MOST)
                ]  # fmt: skip
                self.zero = gr.Button("Back to the mean", visible=False, elem_id=f"{NAME}-zero")
            with gr.Column(min_width=300):
                self.along = gr.Image(
                    label="the mean, moved along the directions", visible=False,
                    elem_id=f"{NAME}-along", alt_text="the mean moved along directions", **png,
                )  # fmt: skip
                self.sample = gr.Slider(
                    1, 2, 1, step=1, label="sample", visible=False, elem_id=f"{NAME}-sample"
                )
                self.play = gr.Checkbox(
                    False, label="play all samples", visible=False, elem_id=f"{NAME}-play"
                )
                self.moving = gr.Image(
                    label="samples", visible=False, elem_id=f"{NAME}-samples",
                    alt_text="one sample, or all of them in turn", **png,
                )  # fmt: skip
        self._connect(tab)

    def _connect(self, tab: Any) -> None:
        event, said = self.site.event, self.said
        every = [
            said, *self.sliders, self.zero, self.along, self.sample, self.play, self.moving
        ]  # fmt: skip
        self.load.click(event(self._load, said), None, every, **QUIET)
        tab.select(event(self._look, said), None, every, **QUIET)
        for slider in self.sliders:
            slider.change(
                event(self._move, said), self.sliders, [said, self.along],
                trigger_mode="always_last", **QUIET,
            )  # fmt: skip
        self.zero.click(lambda: [0.0] * MOST, None, self.sliders, **QUIET)
        for part in (self.sample, self.play):
            part.change(
                event(self._sample, said), [self.sample, self.play], [said, self.moving],
                trigger_mode="always_last", **QUIET,
            )  # fmt: skip

    def _look(self, visit: Visit) -> dict[Any, Any]:
        """When the tab is opened: what was restored meanwhile."""
        new = visit.shown is not None and visit.kept.get(NAME) is not visit.shown
        return self._load(visit) if new else {}

    def _load(self, visit: Visit) -> dict[Any, Any]:
        import gradio as gr

        done = self._done(visit)
        found = directions(done, MOST)
        visit.kept[NAME], visit.kept[f"{NAME}.directions"] = done, found
        count = len(done.samples)
        ways = f"{len(found.axes)} direction{'' if len(found.axes) == 1 else 's'}"
        about = f"{done.task}: {count} samples, {ways}."
        result: dict[Any, Any] = {
            self.said: words.status(about, "done"),
            self.zero: gr.update(visible=True),
            self.sample: gr.update(visible=True, maximum=count, value=1),
            self.play: gr.update(visible=True, value=False),
            **self._sample(visit, 1, False),
            **self._move(visit, *[0.0] * MOST),
        }
        for i, slider in enumerate(self.sliders):
            known = i < len(found.axes)
            share = f" ({100 * float(found.share[i]):.0f} % of the variance)" if known else ""
            result[slider] = gr.update(visible=known, value=0, label=f"direction {i + 1}{share}")
        return result

    def _done(self, visit: Visit) -> Restoration:
        if visit.shown is None:
            raise InvdiffError("Nothing has been restored yet; Restore and Scans do.")
        return visit.shown

    def _file(self, visit: Visit, name: str) -> Path:
        room = visit.kept.setdefault(f"{NAME}.room", visit.room(NAME))
        return Path(room) / name

    def _move(self, visit: Visit, *coefficients: float) -> dict[Any, Any]:
        """The mean along the directions."""
        import gradio as gr

        done, found = self._done(visit), visit.kept.get(f"{NAME}.directions")
        if not isinstance(found, Directions):
            raise InvdiffError("Take a restoration first.")
        asked = [min(max(float(c or 0), -REACH), REACH) for c in coefficients]
        file = shown.along(done, found, asked[: len(found.axes)], self._file(visit, "along.png"))
        return {self.along: gr.update(value=str(file), visible=True)}

    def _sample(self, visit: Visit, number: float, play: bool) -> dict[Any, Any]:
        """One sample, or all of them in turn."""
        import gradio as gr

        done = self._done(visit)
        if play:
            file, label = shown.moving(done, self._file(visit, "moving.png")), "all samples in turn"
        else:
            index = min(max(int(number or 1), 1), len(done.samples))
            file, label = self._file(visit, f"sample-{index}.png"), f"sample {index}"
            shown.one(done, index - 1, file)
        return {self.moving: gr.update(value=str(file), visible=True, label=label)}
