"""The tab in which solvers race on one measurement at equal cost."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from invdiff.app import forms, words
from invdiff.app.asked import AskedRace
from invdiff.app.jobtab import JobTab
from invdiff.app.messages import Begun, Done, Failed, Passed, Stopped, Stopping, Waiting
from invdiff.app.site import QUIET, Site
from invdiff.app.visits import Visit
from invdiff.core import InvdiffError
from invdiff.restoration.race import MOST

NAME = "compare"
FIRST = ["spectral-ancestral", "ddrm", "diffpir"]
HEAD = ("solver", "step", "evaluations", "gradients", "cost", "misfit", "seconds")
ABOUT = (
    "The measurement, the task and the options of the tab below, by two to four solvers with the "
    "same number of evaluations each; a gradient through the prior counts as two. Misfit is the "
    "distance from the measurement in units of its noise: the truth has 1."
)


@dataclass
class Course:
    """What a race has told so far. racers: how many run; last: the last lap of each."""

    racers: int
    rows: list[dict[str, Any]] = field(default_factory=list)
    last: dict[str, Passed] = field(default_factory=dict)
    pictures: dict[str, Any] = field(default_factory=dict)

    def add(self, lap: Passed) -> None:
        """One more lap."""
        self.last[lap.solver] = lap
        if lap.picture is not None:
            self.pictures[lap.solver] = lap.picture
        if lap.misfit is not None:
            self.rows.append({"solver": lap.solver, "cost": lap.cost, "misfit": lap.misfit})

    def table(self) -> list[list[Any]]:
        """A row for each solver."""
        return [
            [
                name, f"{p.step} of {p.steps}", p.evaluations, p.gradients, p.cost,
                "-" if p.misfit is None else f"{p.misfit:.3g}", f"{p.seconds:.1f}",
            ]
            for name, p in self.last.items()
        ]  # fmt: skip


class CompareTab:
    """Choose solvers, and see them race. sources: the tabs whose measurement may be taken."""

    def __init__(self, site: Site, sources: Sequence[JobTab]) -> None:
        self.site, self.sources = site, {s.name: s for s in sources}

    def draw(self) -> None:
        """Everything in the tab."""
        import gradio as gr

        names = [(name.capitalize(), name) for name in self.sources]
        with gr.Row():
            with gr.Column(min_width=300):
                gr.Markdown(ABOUT)
                self.source = gr.Radio(
                    names, value=names[0][1], label="Measurement of the tab",
                    elem_id=f"{NAME}-source",
                )  # fmt: skip
                task = next(iter(self.sources.values())).form.tasks[0]
                self.solvers = gr.Dropdown(
                    forms.solvers_for(task)[1:], value=FIRST, multiselect=True,
                    max_choices=MOST, label="Solvers, two to four", elem_id=f"{NAME}-solvers",
                )  # fmt: skip
                self.cost = gr.Number(
                    40, precision=0, label="Evaluations of each", elem_id=f"{NAME}-cost"
                )
                with gr.Row():
                    self.go = gr.Button("Race", variant="primary", elem_id=f"{NAME}-go")
                    self.stop = gr.Button("Stop", interactive=False, elem_id=f"{NAME}-stop")
                self.said = gr.HTML(
                    words.status("Choose a measurement in Restore or Scans first."),
                    elem_id=f"{NAME}-status",
                )
            with gr.Column(min_width=300):
                self.plot = gr.LinePlot(
                    x="cost", y="misfit", color="solver", height=300, visible=False,
                    x_title="cost (evaluations)", y_title="misfit (1 for the truth)",
                    elem_id=f"{NAME}-plot",
                )  # fmt: skip
                self.pictures = gr.HTML(elem_id=f"{NAME}-pictures")
        self.table = gr.Dataframe(
            headers=list(HEAD), interactive=False, visible=False, label="spent, and reached",
            elem_id=f"{NAME}-table", elem_classes="iv-numbers",
        )  # fmt: skip
        self._connect()

    def _connect(self) -> None:
        event, said = self.site.event, self.said
        made = [said, self.plot, self.pictures, self.table, self.go, self.stop]
        inputs = [part for s in self.sources.values() for part in self._inputs(s)]
        self.go.click(
            event(self._start, said), [self.source, self.solvers, self.cost, *inputs], made, **QUIET
        )
        self.stop.click(self.site.stops(NAME), None, None, **QUIET)
        tasks = [s.form.task for s in self.sources.values()]
        for changing in (self.source, *tasks):
            changing.change(self._choices, [self.source, *tasks], self.solvers, **QUIET)

    @staticmethod
    def _inputs(source: JobTab) -> list[Any]:
        return [*([source.editor] if source.photos else []), *source.form.inputs]

    def _choices(self, source: str, *tasks: str) -> Any:
        """The solvers that can, of the task of the tab."""
        import gradio as gr

        able = forms.solvers_for(dict(zip(self.sources, tasks, strict=True))[source])[1:]
        first = [name for name in FIRST if name in able]
        first += [name for name in able if name not in first]
        return gr.update(choices=able, value=first[:3])

    def _start(
        self, visit: Visit, source: str, solvers: list[str], cost: float, *values: Any
    ) -> Iterator[dict[Any, Any]]:
        import gradio as gr

        left = list(values)
        for name, tab in self.sources.items():
            mine, left = left[: len(self._inputs(tab))], left[len(self._inputs(tab)) :]
            if name == source:
                drawn = mine.pop(0) if tab.photos else None
                asked = tab.form.asked(visit, mine, drawn)
        asked.built()
        if cost is None:
            raise InvdiffError("The number of evaluations is missing.")
        race = AskedRace(asked, tuple(solvers), int(cost))
        yield self._busy(True) | {
            said: value
            for said, value in (
                (self.said, words.status("Reading the file ...", "busy")), (self.pictures, ""),
                (self.plot, gr.update(visible=False)), (self.table, gr.update(visible=False)),
            )
        }  # fmt: skip
        yield from self._run(visit, race)

    def _run(self, visit: Visit, race: AskedRace) -> Iterator[dict[Any, Any]]:
        import gradio as gr

        course, drawn = Course(len(race.solvers)), 0.0
        try:
            for message in self.site.run(visit, NAME, race):
                if isinstance(message, Passed):
                    course.add(message)
                    if time.monotonic() - drawn > 1.0:
                        yield self._drawn(course)
                        drawn = time.monotonic()
                elif isinstance(message, Waiting):
                    text = f"Number {message.place} in line."
                    yield {self.said: words.status(text, "busy")}
                elif isinstance(message, Begun):
                    yield {self.said: words.status("They race.", "busy")}
                elif isinstance(message, Stopping):
                    yield {self.said: words.STOPPING, self.stop: gr.update(interactive=False)}
                elif message is not None:
                    yield self._drawn(course) | self._ended(visit, message)
        except Exception as error:
            text = self.site.wrong(error, visit)
            yield self._busy(False) | {self.said: words.status(text, "wrong")}

    def _drawn(self, course: Course) -> dict[Any, Any]:
        import gradio as gr
        import pandas as pd

        names = list(course.pictures)
        found = {
            self.pictures: words.pictures([course.pictures[n] for n in names], names),
            self.table: gr.update(value=course.table(), visible=bool(course.last)),
        }
        if len({row["solver"] for row in course.rows}) == course.racers:  # its colours stay
            found[self.plot] = gr.update(value=pd.DataFrame(course.rows), visible=True)
        return found

    def _ended(self, visit: Visit, message: Any) -> dict[Any, Any]:
        found = self._busy(False)
        if isinstance(message, Done):
            found[self.said] = words.status("Done: all have spent what they may.", "done")
        elif isinstance(message, Stopped):
            found[self.said] = words.status("Stopped.")
        elif isinstance(message, Failed):
            text = words.without_folder(message.text, visit.folder)
            found[self.said] = words.status(text, "wrong")
        return found

    def _busy(self, busy: bool) -> dict[Any, Any]:
        import gradio as gr

        return {self.go: gr.update(interactive=not busy), self.stop: gr.update(interactive=busy)}
