"""`invdiff completion`: a script for a shell, made of the same options as the help."""

from __future__ import annotations

import argparse
from typing import Literal, get_args, get_origin

from invdiff import fields
from invdiff.cli import COMMANDS, OK
from invdiff.commands.common import FileOptions, PriorOptions, RunOptions
from invdiff.commands.degrade import MakeOptions
from invdiff.commands.parser import wants_help
from invdiff.core import InvdiffError
from invdiff.core.option import flag
from invdiff.plugins import load_installed
from invdiff.tasks import TASKS

SHELLS = ("bash", "zsh")
USAGE = """usage: invdiff completion bash|zsh

Print a script that completes commands, tasks, options and files of invdiff.

  bash: invdiff completion bash > ~/.local/share/bash-completion/completions/invdiff
  zsh:  invdiff completion zsh > DIR/_invdiff, with DIR in $fpath"""


def run(name: str, args: list[str]) -> int:
    """Print the script of a shell; the exit code."""
    if wants_help(args):
        print(USAGE)
        return OK
    if len(args) != 1 or args[0] not in SHELLS:
        raise InvdiffError(f"Name a shell, bash or zsh: invdiff completion bash; found {args}.")
    import shtab

    print(shtab.complete(tree(), shell=args[0]))
    return OK


def tree() -> argparse.ArgumentParser:
    """All commands with their options, as argparse has them."""
    load_installed()
    top = argparse.ArgumentParser(prog="invdiff")
    commands = top.add_subparsers()
    for name, (_, summary) in COMMANDS.items():
        command = commands.add_parser(name, help=summary)
        if name not in ("restore", "degrade"):
            continue
        tasks = command.add_subparsers()
        for task, cls in TASKS.items():
            making = cls.simulation()
            if name == "restore":
                owners: tuple[type, ...] = (cls, RunOptions, PriorOptions, FileOptions)
            elif making is not None:
                owners = (making, MakeOptions)
            else:
                continue
            to = tasks.add_parser(task, help=cls.summary())
            _mark(to.add_argument("file"))
            for owner in owners:
                _add(to, owner)
    return top


def _add(to: argparse.ArgumentParser, owner: type) -> None:
    """The options of a dataclass, with the words and the files that complete them."""
    kinds = fields.hints(owner)
    for name, field in fields.options(owner).items():
        kind, text = kinds[name], field.metadata["help"].replace("%", "")
        if kind is bool:
            to.add_argument(flag(name), action="store_true", help=text)
        elif get_origin(kind) is Literal:
            to.add_argument(flag(name), choices=list(map(str, get_args(kind))), help=text)
        else:
            option = to.add_argument(flag(name), help=text)
            if kind not in (int, float, str):
                _mark(option)


def _mark(option: argparse.Action) -> None:
    """Let files complete an option."""
    import shtab

    option.complete = shtab.FILE  # type: ignore[attr-defined]
