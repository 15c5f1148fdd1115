"""The interface for programs: the same jobs by the Python client, or plain HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from invdiff import fields
from invdiff.app import forms, words
from invdiff.app.asked import AskedJob, HowOptions
from invdiff.app.intake import measurement
from invdiff.app.messages import Done, Failed, Stopped
from invdiff.app.results import zipped
from invdiff.app.site import Site
from invdiff.app.visits import Visit
from invdiff.core import InvdiffError
from invdiff.tasks import TASKS, task_class


def described() -> dict[str, Any]:
    """Every task with its options, as forms show them."""
    return {
        name: {
            "about": cls.summary(),
            "options": {
                e.name: {"help": e.help, "needed": e.needed, "takes a file": e.files}
                for e in forms.entries(cls)
            },
        }
        for name, cls in TASKS.items()
    }


def asked_of(
    site: Site, visit: Visit, task: str, files: list[str], options: dict[str, Any],
    how: dict[str, Any],
) -> AskedJob:  # fmt: skip
    """What a program asks for. files: the measurement, then files that options name by their
    names. Raises InvdiffError."""
    cls = task_class(task)
    taken = site.intake.take(files, visit.room("call"))
    if not taken:
        raise InvdiffError("The file is missing; give the measurement first.")
    byname = {file.name: str(file) for file in taken}
    values, given = {}, {}
    forms.check_known(cls, list(options), task)
    for entry in forms.entries(cls):
        value = options.get(entry.name)
        if value is not None and entry.files and str(value) in byname:
            given[entry.name] = byname[str(value)]
        elif value is not None:
            values[entry.name] = value
    told = forms.told(cls, values, given)
    out = visit.room("answer") / f"restored-{taken[0].stem}-call"
    run = fields.build(HowOptions, how, "restore")
    return AskedJob(task, str(measurement(taken)), str(out), told, run)


def add(site: Site) -> None:
    """Add `/tasks` and `/restore` to the page that is being drawn."""
    import gradio as gr
    from gradio.data_classes import FileData

    def tasks() -> dict[str, Any]:
        """Every task, with its options."""
        return described()

    def restore(request: Any, task: str, files: Any, options: Any = None, how: Any = None) -> Any:
        visit = site.visit(request)
        try:
            found = restored(site, visit, task, _paths(files), options or {}, how or {})
            return FileData(path=str(found), orig_name=found.name)
        except Exception as error:
            raise gr.Error(site.wrong(error, visit)) from None

    restore.__annotations__ = {
        "request": gr.Request, "task": str, "files": list[FileData], "options": dict, "how": dict,
        "return": FileData,
    }  # fmt: skip
    limits = {"concurrency_limit": None}
    gr.api(tasks, api_name="tasks", api_description="Every task, with its options.", **limits)
    gr.api(
        restore, api_name="restore", **limits,
        api_description=(
            "Restore a measurement; a zip with pictures and run.json. task: a name of /tasks. "
            "files: the measurement, then files of options, which name them. options: of the task. "
            "how: want, samples, seed, steps, solver, prior, precision."
        ),
    )  # fmt: skip


def _paths(files: Any) -> list[str]:
    found = []
    for file in files or ():
        path = file.get("path") if isinstance(file, dict) else getattr(file, "path", file)
        if not isinstance(path, str):
            raise InvdiffError("Files are uploads; the Python client makes them by handle_file.")
        found.append(path)
    return found


def restored(
    site: Site, visit: Visit, task: str, files: list[str], options: dict[str, Any],
    how: dict[str, Any],
) -> Path:  # fmt: skip
    """The zip of a restoration. Raises InvdiffError with the sentence of what went wrong."""
    asked = asked_of(site, visit, task, files, options, how)
    asked.built()
    for message in site.pool.run(asked, visit.closed.is_set):
        if isinstance(message, Failed):
            raise InvdiffError(words.without_folder(message.text, visit.folder))
        if isinstance(message, Stopped):
            raise InvdiffError("The job was stopped.")
        if isinstance(message, Done):
            return zipped(Path(message.out))
    raise InvdiffError("The job ended without an answer; try again.")
