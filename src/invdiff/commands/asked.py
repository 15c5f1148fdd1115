"""Which task a command line is about, and the answers to command lines of before."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from invdiff.batch.settings import BatchOptions
from invdiff.commands.common import FileOptions, PriorOptions, RunOptions
from invdiff.commands.parser import Given, Parser, read_config
from invdiff.core import InvdiffError, nearest
from invdiff.core.option import flag
from invdiff.fields import hints, options
from invdiff.plugins import load_installed
from invdiff.tasks import TASKS

ALONE = {
    flag(name)
    for cls in (RunOptions, PriorOptions, FileOptions, BatchOptions)
    for name, kind in hints(cls).items()
    if kind is bool
}
"""Options without a value."""
BEFORE = {"--sigma": "--noise", "--solver.name": "--solver"}
"""Options of before, and what they are called now."""


def split(name: str, args: Sequence[str]) -> tuple[str | None, list[str]]:
    """The task, and the other arguments. None where a YAML file, or an earlier run, tells it.

    Raises InvdiffError for no task, an unknown one, and for a command line of before, with what to
    type now.
    """
    _check_old(name, args)
    load_installed()
    for i, arg in enumerate(args):
        after = args[i - 1] if i else ""
        value = after.startswith("-") and "=" not in after and after not in ALONE
        if arg in TASKS and not value:
            return arg, [*args[:i], *args[i + 1 :]]
    if any(a.partition("=")[0] in ("--config", "--from") for a in args):
        return None, list(args)
    words = [a for i, a in enumerate(args) if not a.startswith("-") and not _is_value(args, i)]
    if not words:
        raise InvdiffError(f"The task is missing: invdiff {name} TASK FILE; {_known()}")
    if Path(words[0]).exists() or "." in words[0]:
        raise InvdiffError(
            f"The task comes before the file: invdiff {name} TASK {words[0]}; {_known()}"
        )
    raise nearest(words[0], TASKS, "task")


def _is_value(args: Sequence[str], i: int) -> bool:
    before = args[i - 1] if i else ""
    return before.startswith("--") and "=" not in before and before not in ALONE


def _known() -> str:
    return f"the tasks are {', '.join(TASKS)}."


def _check_old(name: str, args: Sequence[str]) -> None:
    """Raise InvdiffError for --task, --sigma and such of before, with the command of now."""
    keys = [a.partition("=")[0] for a in args]
    old = [k for k in ("--task", *BEFORE) if k in keys]
    if not old:
        return
    rest, task, left = [], [], list(args)
    while left:
        key, equals, value = left.pop(0).partition("=")
        if key == "--task":
            task = [value if equals else left.pop(0) if left else "TASK"]
        else:
            key = BEFORE.get(key, key)
            rest.append(f"{key}{equals}{value}")
    rest = [a for a in rest if a not in task]
    gone = " and ".join(old)
    now = shlex.join(["invdiff", name, *task, *rest])
    raise InvdiffError(
        f"{gone} of before {'are' if ' ' in gone else 'is'} gone: {now} does the same now."
    )


def with_config(to: Parser, given: Given, task: str | None, known: Any) -> str:
    """The task, with what a YAML file tells put into `given`.

    known(task): dataclasses whose options it may hold. Raises InvdiffError where neither the
    command line nor the file tells the task.
    """
    path = given.options.pop("config", None)
    content = {} if path is None else read_config(path)
    told = content.pop("task", None)
    if task is None and told is None:
        raise InvdiffError(f"The task is missing: {path} has no line `task: NAME`; {_known()}")
    if task is None and str(told) not in TASKS:
        raise nearest(str(told), TASKS, "task")
    task = task or str(told)
    names = {n for cls in known(task) for n in options(cls)} - {"config", "print_config"}
    file = content.pop("file", None)
    given.merged(content, names)
    if file is not None and not given.words:
        given.words.append(str(file))
    return task


def one_file(given: Given, name: str, task: str, what: str) -> Path:
    """The file that is named. Raises InvdiffError unless there is one."""
    if not given.words:
        raise InvdiffError(f"The file is missing: invdiff {name} {task} FILE, {what}.")
    if len(given.words) > 1:
        raise InvdiffError(
            f"There is one {given.words[1]!r} too many; quote names that hold spaces."
        )
    return Path(given.words[0])
