"""The command `invdiff`: finds the subcommand, and turns every failure into one sentence.

Nothing heavy is imported before the subcommand is known, so that help appears at once.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Sequence
from importlib import resources
from importlib.metadata import entry_points

from invdiff import __version__
from invdiff.allocator import keep_freed

COMMANDS = {
    "restore": (
        "restore",
        "restore a photograph, an MR image, a CT slice, with the uncertainty shown",
    ),
    "batch": ("batch", "restore many images, on one machine or on many"),
    "degrade": ("degrade", "make a measurement of a clean image, for trying and for benchmarks"),
    "solvers": ("tables", "which solver can do which task, and why others cannot"),
    "tasks": ("tables", "what can be restored, and what each task must be told"),
    "priors": ("tables", "which models of clean images there are"),
    "train": ("train", "train a prior on images of your own"),
    "app": ("app", "restore in a browser: a page on this machine"),
    "completion": ("completion", "print a script that completes commands in bash or zsh"),
    "audit": ("audit", "measure how far solvers are from posteriors that are known"),
    "bench": ("bench", "measure solvers beside each other on images of your own"),
    "cache": ("cache", "what is kept between runs, to make them faster, and how to clear it"),
    "cite": ("cite", "what to cite for a run, or for a solver and a prior"),
}
"""Name to (module in invdiff.commands, summary)."""

OK, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code: 0 done, 2 bad input, 130 interrupted, 1 otherwise."""
    args = list(sys.argv[1:] if argv is None else argv)
    _open_streams()
    debug = "--debug" in args
    args = [a for a in args if a != "--debug"]
    try:
        args = _plugins(args)
        code = _dispatch(args)
        sys.stdout.flush()
        return code
    except SystemExit as stop:  # after the help of `cite`
        return stop.code if isinstance(stop.code, int) else OK
    except KeyboardInterrupt:
        print("invdiff: interrupted.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader, such as `head`, has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except Exception as error:
        if debug:
            raise
        from invdiff.core import printable

        sentence, code = explain(error)
        print(printable(f"invdiff: {sentence}"), file=sys.stderr)
        return code


def _open_streams() -> None:
    """Let any name be printed, and nothing be lost where stdout or stderr is closed.

    A closed one is opened on nothing, else the first file that is opened would take its place.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
        elif hasattr(stream, "reconfigure"):  # of ASCII terminals; backslashes are read by all
            stream.reconfigure(errors="backslashreplace")


def _dispatch(args: list[str]) -> int:
    name = args[0] if args else "help"
    if name in ("-h", "--help", "help"):
        print(overview())
        return OK
    if name in ("-V", "--version"):
        print(f"invdiff {__version__}")
        return OK
    text = stored(args)
    if text is not None:
        print(text)
        return OK
    if name not in COMMANDS:
        from invdiff.core import nearest

        raise nearest(name, COMMANDS, "command")
    keep_freed()
    if name == "batch":
        from invdiff.batch import ahead

        ahead.begin(args[1:])
    module = importlib.import_module(f"invdiff.commands.{COMMANDS[name][0]}")
    code: int = module.run(name, args[1:])
    return code


def _plugins(args: list[str]) -> list[str]:
    """Import what --plugin names; the other arguments."""
    left: list[str] = []
    while args:
        key, equals, value = args[0].partition("=")
        args = args[1:]
        if key != "--plugin":
            left.append(f"{key}{equals}{value}")
            continue
        from invdiff.core import InvdiffError
        from invdiff.plugins import load

        if not equals and not args:
            raise InvdiffError("--plugin needs a value, FILE.py or a MODULE.")
        load(value if equals else args[0])
        args = args if equals else args[1:]
    return left


def stored(args: Sequence[str]) -> str | None:
    """The help or the table that a command prints, where it was stored: then torch is not needed.

    None where it is to be made: for anything else, and where plugins may add to it.
    """
    asks = [a for a in args if a in ("-h", "--help")]
    words = [a for a in args if a not in asks]
    if not asks and words not in (["tasks"], ["solvers"], ["priors"]):
        return None
    if not all(re.fullmatch("[a-z0-9-]+", word) and word[0] != "-" for word in words):
        return None
    if "invdiff.plugins" in sys.modules or entry_points(group="invdiff"):
        return None
    name = "-".join(words) + (".help" if asks else "")
    path = resources.files("invdiff") / "texts" / f"{name}.txt"
    return path.read_text(encoding="utf-8").rstrip("\n") if path.is_file() else None


def overview() -> str:
    """The text of `invdiff --help`."""
    lines = [
        "usage: invdiff COMMAND ...",
        "",
        "Recover images from measurements, with a diffusion model as the prior.",
        "",
        *(f"  {name:<11} {summary}" for name, (_, summary) in COMMANDS.items()),
        "",
        "`invdiff COMMAND --help` tells the options of a command.",
        "`invdiff --version` tells the version; `--debug` shows where an error comes from;",
        "`--plugin FILE.py` or `--plugin MODULE` adds tasks, solvers and operators of others.",
        "",
        "  invdiff restore super-resolution photo.jpg --scale 2",
        "  invdiff restore jpeg photo.jpg",
        "  invdiff restore mri kspace.h5",
        "  invdiff restore ct sinogram.h5 --center estimate",
    ]
    return "\n".join(lines)


def explain(error: Exception) -> tuple[str, int]:
    """One sentence on a failure, and the exit code."""
    from invdiff.core.errors import InvdiffError, sentence

    return sentence(error), BAD_INPUT if isinstance(error, InvdiffError) else FAILED
