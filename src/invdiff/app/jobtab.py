"""The tabs that restore: photographs, and scans."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from invdiff.app import words
from invdiff.app.again import Again
from invdiff.app.examples import examples_of
from invdiff.app.intake import added, measurement
from invdiff.app.messages import Begun, Done, Failed, Running, Stopped, Stopping, Waiting
from invdiff.app.results import Results
from invdiff.app.site import QUIET, Site
from invdiff.app.taskform import TaskForm
from invdiff.app.visits import Visit
from invdiff.core import InvdiffError
from invdiff.files.pictures import read_photo, save_picture
from invdiff.files.pictures import words as size_words

READY = "Drop a file, paste a picture, or take an example; then press Restore."
PAINT = (
    "Paint over what is to be restored. Without a mouse, write box:TOP,LEFT,HEIGHT,WIDTH above, or "
    "upload a mask."
)


class JobTab:
    """One tab. photos: whether measurements are pictures, which are shown, painted and cropped."""

    def __init__(self, site: Site, name: str, tasks: list[str], photos: bool) -> None:
        self.site, self.name, self.photos = site, name, photos
        self.form = TaskForm(site, name, tasks)
        self.results, self.again = Results(site, name), Again(site, name)
        self.examples = examples_of(tasks)

    def draw(self) -> None:
        """Everything in the tab."""
        import gradio as gr

        self.said = gr.HTML(words.status(READY), elem_id=f"{self.name}-status", render=False)
        with gr.Row():
            with gr.Column(min_width=300):
                self._draw_input()
                self.form.draw_choice(self.said)
                if self.photos:
                    self._draw_mask()
                self.form.draw_options()
                with gr.Accordion("How it is run", open=False):
                    self.form.draw_how()
                self.again.draw()
            with gr.Column(min_width=300):
                self._draw_buttons()
                self.said.render()
                self.lines = gr.HTML(elem_id=f"{self.name}-lines")
                self.preview = gr.HTML(elem_id=f"{self.name}-preview")
                self.results.draw(self.said)
        self._connect()

    def _draw_input(self) -> None:
        import gradio as gr

        name = self.name
        self.example = gr.Dropdown(
            [(e.title, i) for i, e in enumerate(self.examples)], value=None, label="Example",
            elem_id=f"{name}-example",
        )  # fmt: skip
        self.file = gr.File(
            label="Photograph" if self.photos else "Measurement: k-space, a sinogram, ...",
            file_count="multiple", height=130, elem_id=f"{name}-file",
        )  # fmt: skip
        self.input = gr.Image(
            label="the photograph, pixel by pixel", format="png", interactive=False, visible=False,
            elem_id=f"{name}-input", alt_text="the photograph", height=260,
            buttons=["fullscreen"], elem_classes="iv-pixels",
        )  # fmt: skip

    def _draw_mask(self) -> None:
        import gradio as gr

        with gr.Accordion("Paint the mask", open=False, visible=self._paints()) as self.masking:
            gr.Markdown(PAINT)
            self.editor = gr.ImageEditor(
                type="pil", format="png", image_mode="RGBA", sources=(), transforms=(),
                brush=gr.Brush(default_size=12, colors=["#ff2d95"], color_mode="fixed"),
                elem_id=f"{self.name}-editor", label="mask", height=360,
            )  # fmt: skip
        with gr.Accordion("Crop", open=False):
            with gr.Row():
                self.box = [
                    gr.Number(None, label=label, precision=0, elem_id=f"{self.name}-{label}")
                    for label in ("left", "top", "width", "height")
                ]
            self.crop = gr.Button("Crop to these pixels", elem_id=f"{self.name}-crop")

    def _paints(self, task: str | None = None) -> bool:
        from invdiff.app.forms import entries
        from invdiff.tasks import TASKS

        return any(e.painted for e in entries(TASKS[task or self.form.tasks[0]]))

    def _draw_buttons(self) -> None:
        import gradio as gr

        with gr.Row():
            name, low = self.name, {"interactive": False, "min_width": 90}
            self.go = gr.Button("Restore", variant="primary", elem_id=f"{name}-go", min_width=110)
            self.stop = gr.Button("Stop", elem_id=f"{name}-stop", **low)
            self.on = gr.Button("Resume", elem_id=f"{name}-resume", **low)

    def _connect(self) -> None:
        event, said = self.site.event, self.said
        seen = [self.said, self.input, self.on]
        seen += [self.editor, *self.box] if self.photos else []
        self.file.upload(event(self._uploaded, said), self.file, [self.file, *seen], **QUIET)
        self.example.input(
            event(self._exampled, said), self.example, [*seen, *self.form.outputs], **QUIET
        )
        if self.photos:
            self.crop.click(event(self._cropped, said), self.box, seen, **QUIET)
            self.form.task.change(self._masking, self.form.task, self.masking, **QUIET)
        drawn = [self.editor] if self.photos else []
        made = [
            self.said, self.lines, self.preview, self.go, self.stop, self.on,
            *self.results.outputs,
        ]  # fmt: skip
        inputs = [*drawn, *self.form.inputs]
        self.go.click(event(self._start, said), inputs, made, **QUIET)
        self.on.click(event(self._resume, said), None, made, **QUIET)
        self.again.connect(said, self._repeat, made)
        self.stop.click(self.site.stops(self.name), None, None, **QUIET)

    def _masking(self, task: str) -> Any:
        import gradio as gr

        return gr.update(visible=self._paints(task))

    def _uploaded(self, visit: Visit, paths: list[str] | None) -> dict[Any, Any]:
        """Take a measurement."""
        if not paths:
            raise InvdiffError("No file arrived; choose one.")
        new = added(paths, visit.kept.get(f"{self.name}.new", ()))
        visit.kept[f"{self.name}.new"] = new
        files = self.site.intake.take(new, visit.room("measurement"))
        return self._given(visit, measurement(files)) | {self.file: new}

    def _given(self, visit: Visit, file: Path, note: str = "", more: str = "") -> dict[Any, Any]:
        """Remember the measurement, and show it where it is a picture."""
        import gradio as gr

        visit.kept.pop(f"{self.name}.file", None)
        found: dict[Any, Any] = {self.on: gr.update(interactive=False)}
        about = ""
        if self.photos:
            photo = read_photo(file)
            picture = visit.room("seen") / "photograph.png"
            save_picture(picture, photo.pixels.nan_to_num())
            visit.kept["photo.size"] = (photo.size[1], photo.size[0])
            about = f" ({photo.about})"
            whole = (0, 0, photo.size[1], photo.size[0])
            found |= dict(zip(self.box, whole, strict=True))
            found[self.input] = gr.update(value=picture, visible=True)
            found[self.editor] = {"background": str(picture), "layers": [], "composite": None}
        visit.kept[f"{self.name}.file"] = file
        return found | {self.said: words.status(f"{note}{file.name}{about} is ready{more}.")}

    def _exampled(self, visit: Visit, index: int | None) -> dict[Any, Any]:
        """Take an example, with what its task has to be told."""
        if index is None:
            raise InvdiffError("Choose an example.")
        example = self.examples[index]
        file, files = example.copied(visit.room("example"))
        visit.kept[f"{self.name}.files"] = {(example.task, k): path for k, path in files.items()}
        brought = f", with a file for {' and '.join(files)}" if files else ""
        found = self._given(visit, file, more=brought)
        return found | self.form.filled(example.task, example.options)

    def _cropped(self, visit: Visit, *box: float | None) -> dict[Any, Any]:
        """Cut the photograph, without changing a pixel of what is left."""
        file = visit.kept.get(f"{self.name}.file")
        if file is None:
            raise InvdiffError("The file is missing; there is nothing to crop.")
        if any(v is None for v in box):
            raise InvdiffError("Cropping needs left, top, width and height, in pixels.")
        left, top, width, height = (int(v or 0) for v in box)
        photo = read_photo(file)
        inside = left >= 0 and top >= 0 and min(width, height) >= 1
        if not inside or left + width > photo.size[1] or top + height > photo.size[0]:
            raise InvdiffError(
                f"The crop reaches beyond the picture of {size_words(photo.size)} pixels."
            )
        cut = visit.room("cropped") / f"{file.stem}.png"
        rows, columns = slice(top, top + height), slice(left, left + width)
        alpha = None if photo.alpha is None else photo.alpha[rows, columns]
        depth = 8 if photo.depth == 8 else 16
        save_picture(cut, photo.pixels[:, rows, columns], alpha, photo.icc, depth)
        return self._given(visit, cut, "Cropped: ")

    def _start(self, visit: Visit, *values: Any) -> Iterator[dict[Any, Any]]:
        drawn, rest = (values[0], values[1:]) if self.photos else (None, values)
        asked = self.form.asked(visit, rest, drawn)
        asked.built()  # what does not fit is told before there is a line to stand in
        yield from self._run(visit, asked)

    def _resume(self, visit: Visit) -> Iterator[dict[Any, Any]]:
        asked = visit.kept.get(f"{self.name}.stopped")
        if asked is None:
            raise InvdiffError("There is no stopped run to go on with.")
        yield from self._run(visit, replace(asked, resume=True))

    def _repeat(self, visit: Visit, paths: list[str] | None) -> Iterator[dict[Any, Any]]:
        yield from self._run(visit, self.again.asked(visit, paths))

    def _run(self, visit: Visit, asked: Any) -> Iterator[dict[Any, Any]]:
        """Do a job and show how it goes."""
        visit.kept.pop(f"{self.name}.stopped", None)
        yield self._busy(True) | {
            self.said: words.status("Reading the file ...", "busy"), self.preview: "",
            self.lines: "",
        }  # fmt: skip
        try:
            for message in self.site.run(visit, self.name, asked):
                if message is not None and (told := self._told(visit, asked, message)):
                    yield told
        except Exception as error:
            text = self.site.wrong(error, visit)
            yield self._busy(False) | {self.said: words.status(text, "wrong")}

    def _told(self, visit: Visit, asked: Any, message: Any) -> dict[Any, Any]:
        import gradio as gr

        if isinstance(message, Waiting):
            return {self.said: words.status(f"Number {message.place} in line.", "busy")}
        if isinstance(message, Begun):
            lines = [(k, words.without_folder(v, visit.folder)) for k, v in message.lines]
            return {self.lines: words.lines(lines)}
        if isinstance(message, Running):
            stopping = visit.stop(self.name).is_set()  # of which it was told
            found: dict[Any, Any] = {} if stopping else {self.said: words.running(message)}
            if message.pictures:
                found[self.preview] = words.pictures(message.pictures, _names(message))
            return found
        if isinstance(message, Stopping):
            return {self.said: words.STOPPING, self.stop: gr.update(interactive=False)}
        return self._ended(visit, asked, message)

    def _ended(self, visit: Visit, asked: Any, message: Any) -> dict[Any, Any]:
        import gradio as gr

        found = self._busy(False)
        if isinstance(message, Done):
            found |= self.results.filled(visit, Path(message.out))
            found |= {self.said: words.status("Done.", "done"), self.preview: ""}
        elif isinstance(message, Stopped):
            text = "Stopped."
            if message.kept:
                text = (
                    f"Stopped after {message.steps_done} of {message.steps} steps; Resume goes on."
                )
                visit.kept[f"{self.name}.stopped"] = asked
                found[self.on] = gr.update(interactive=True)
            found[self.said] = words.status(text)
        elif isinstance(message, Failed):
            text = words.without_folder(message.text, visit.folder)
            found[self.said] = words.status(text, "wrong")
        return found

    def _busy(self, busy: bool) -> dict[Any, Any]:
        import gradio as gr

        return {
            self.go: gr.update(interactive=not busy),
            self.stop: gr.update(interactive=busy),
            self.on: gr.update(interactive=False),
        }


def _names(message: Running) -> list[str]:
    if message.part == "estimate":
        return ["the estimate so far"]
    return [f"sample {i + 1} so far" for i in range(len(message.pictures))]
