"""The part of a tab that tells what is wrong with a measurement, and how it is to be restored."""

from __future__ import annotations

import mimetypes
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from invdiff import fields
from invdiff.app import forms
from invdiff.app.asked import AskedJob, HowOptions
from invdiff.app.site import QUIET, Site
from invdiff.app.visits import Visit
from invdiff.core import InvdiffError
from invdiff.priors.load import BUILT_IN
from invdiff.tasks import TASKS
from invdiff.tasks.photo import PhotoTask


def is_photo_task(name: str) -> bool:
    """Whether a task takes a picture: by its kind, or by the file of its example."""
    kind = mimetypes.guess_type(TASKS[name].example.split()[0])[0] or ""
    return issubclass(TASKS[name], PhotoTask) or kind.startswith("image/")


class TaskForm:
    """Options of one of several tasks, and of the run; `inputs` are its components."""

    def __init__(self, site: Site, tab: str, tasks: list[str]) -> None:
        self.site, self.tab, self.tasks = site, tab, tasks
        self._fields: list[tuple[str, forms.Entry]] = []
        self._files: list[tuple[str, forms.Entry]] = []
        self._how: list[forms.Entry] = []
        self._parts: list[Any] = []
        self._groups: dict[str, Any] = {}

    def draw_choice(self, said: Any) -> None:
        """What is to be done. said: where failures are told."""
        import gradio as gr

        self.said = said
        first = self.tasks[0]
        choices = [(f"{TASKS[t].summary()} ({t})", t) for t in self.tasks]
        self.task = gr.Dropdown(
            choices, value=first, label="What is to be done", elem_id=f"{self.tab}-task",
            filterable=True,
        )  # fmt: skip

    def draw_options(self) -> None:
        """The options of every task, of which those of the chosen one are seen."""
        import gradio as gr

        for name in self.tasks:
            with gr.Group(visible=name == self.tasks[0]) as group:
                self._groups[name] = group
                self._draw_task(name)

    def _draw_task(self, name: str) -> None:
        where = f"{self.tab}-{name}"
        for entry in forms.entries(TASKS[name]):
            if entry.kind is not Path:
                self._fields.append((name, entry))
                self._parts.append(forms.component(entry, where))
            if entry.files:
                part = forms.file_component(entry, where)
                self._files.append((name, entry))
                part.change(
                    self.site.event(partial(self._took, name, entry), self.said),
                    part, [self.said], **QUIET,
                )  # fmt: skip

    def draw_how(self) -> None:
        """Options of the run, and the knobs of the solver that is chosen."""
        import gradio as gr

        for entry in forms.entries(HowOptions):
            self._how.append(entry)
            part = self._how_part(entry)
            self._parts.append(part)
            if entry.name == "solver":
                self.solver = part
        self.knobs = gr.State(dict[str, str]())
        self.task.change(self._chosen, self.task, [*self._groups.values(), self.solver], **QUIET)
        for changing in (self.task, self.solver):
            changing.change(lambda: {}, None, self.knobs, **QUIET)

        @gr.render(inputs=[self.task, self.solver], show_progress="hidden")  # type: ignore[untyped-decorator]
        def knobs(task: str, solver: str) -> None:
            if solver in (None, "", "auto"):
                gr.Markdown("Choose a solver by its name to see its knobs.")
                return
            for entry in forms.knobs(task, solver):
                part = forms.component(entry, f"{self.tab}-knob")
                part.change(partial(set_knob, entry), [self.knobs, part], self.knobs, **QUIET)

    def _how_part(self, entry: forms.Entry) -> Any:
        import gradio as gr

        choices = {"solver": forms.solvers_for(self.tasks[0]), "prior": ["", *BUILT_IN]}
        if entry.name not in choices:
            return forms.component(entry, self.tab)
        return gr.Dropdown(
            [("the task's own" if c == "" else c, c) for c in choices[entry.name]],
            value=entry.default or "", label=entry.label, info=entry.help,
            elem_id=f"{self.tab}-{entry.name}",
        )  # fmt: skip

    def _chosen(self, task: str) -> list[Any]:
        import gradio as gr

        shown = [gr.update(visible=name == task) for name in self._groups]
        return [*shown, gr.update(choices=forms.solvers_for(task), value="auto")]

    def _took(self, task: str, entry: forms.Entry, visit: Visit, path: str | None) -> Any:
        """Keep the file of an entry, or forget it."""
        files = visit.kept.setdefault(f"{self.tab}.files", {})
        files.pop((task, entry.name), None)
        if path is not None:
            (file,) = self.site.intake.take([path], visit.room("option"))
            files[task, entry.name] = str(file)
        return {}

    @property
    def inputs(self) -> list[Any]:
        """Everything that `asked` reads."""
        return [self.task, self.knobs, *self._parts]

    def asked(self, visit: Visit, values: Any, mask: Any = None) -> AskedJob:
        """What the form asks for. mask: layers that were painted. Raises InvdiffError."""
        task, knobs, *rest = values
        file = visit.kept.get(f"{self.tab}.file")
        if file is None:
            raise InvdiffError("The file is missing; drop one, choose one, or take an example.")
        if task not in self.tasks:
            raise InvdiffError(f"There is no task {task!r} here.")
        told = zip(self._fields, rest, strict=False)
        filled = {entry.name: value for (name, entry), value in told if name == task}
        kept: Mapping[Any, str] = visit.kept.get(f"{self.tab}.files", {})
        files = {entry: path for (name, entry), path in kept.items() if name == task}
        drawn = None if mask is None else painted_file(mask, visit)
        for entry in forms.entries(TASKS[task]):
            if entry.painted and entry.name not in files and drawn is not None:
                files[entry.name] = drawn
        options = forms.told(TASKS[task], filled, files)
        how = {
            entry.name: text
            for entry, value in zip(self._how, rest[len(self._fields) :], strict=True)
            if (text := forms.changed(entry, value)) is not None
        }
        return AskedJob(
            task, str(file), str(visit.folder / f"restored-{Path(file).stem}-{self.tab}"), options,
            fields.build(HowOptions, how, "the page"), dict(knobs or {}),
        )  # fmt: skip

    def filled(self, task: str, options: Mapping[str, str]) -> dict[Any, Any]:
        """Components with the options of a task put in, for an example or an earlier run."""
        import gradio as gr

        found: dict[Any, Any] = {self.task: task}
        found |= {g: gr.update(visible=name == task) for name, g in self._groups.items()}
        for (name, entry), part in zip(self._fields, self._parts, strict=False):
            if name == task:
                found[part] = forms.seen(entry, options.get(entry.name))
        return found

    @property
    def outputs(self) -> list[Any]:
        """Everything that `filled` may change."""
        return [self.task, *self._groups.values(), *self._parts[: len(self._fields)]]


def set_knob(entry: forms.Entry, knobs: dict[str, str], value: Any) -> dict[str, str]:
    """Knobs with one of them set, or left to its preset."""
    text = forms.changed(entry, value)
    left = {k: v for k, v in knobs.items() if k != entry.name}
    return left if text is None else left | {entry.name: text}


def painted_file(editor: Any, visit: Visit) -> str | None:
    """The mask that was painted: white where any layer is. None where nothing was painted."""
    layers = [layer for layer in (editor or {}).get("layers", ()) if layer is not None]
    total = None
    for layer in layers:
        alpha = layer.convert("RGBA").getchannel("A").point(lambda a: 255 if a > 0 else 0)
        total = alpha if total is None else Image.composite(alpha, total, alpha)
    if total is None or total.getbbox() is None:
        return None
    size = visit.kept.get("photo.size")
    if size is not None and total.size != size:
        total = total.resize(size, Image.Resampling.NEAREST)
    file = visit.room("painted") / "mask.png"
    total.save(file)
    return str(file)
