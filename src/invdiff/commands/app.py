"""`invdiff app`: the page, served on this machine."""

from __future__ import annotations

import sys

from invdiff import fields
from invdiff.app.settings import AppOptions
from invdiff.cli import OK
from invdiff.commands.common import say, terminations_as_interrupts
from invdiff.commands.parser import Parser, wants_help
from invdiff.core import InvdiffError

ABOUT = """Restore photographs and scans in a browser: choose what is wrong, watch samples appear,
see what is uncertain, compare solvers, explore what a measurement leaves open. The page is on this
machine alone unless --host says otherwise, needs no network and tells nobody anything. What is
uploaded lies in a private folder, and is deleted when the visit ends. It needs the extra `app`
(pip install 'invdiff[app]')."""
MORE = """  invdiff app
  invdiff app --port 8000 --browser
  invdiff app --host 0.0.0.0 --auth users.txt --device cuda:0,cuda:1
  invdiff app --root-path /invdiff          behind a proxy that serves it under /invdiff

docs/app.md tells what each tab does, and how programs use it."""
LOCAL = ("127.0.0.1", "localhost", "::1")


def run(name: str, args: list[str]) -> int:
    """Serve the page until Ctrl-C; the exit code."""
    to = Parser(name, "[options]", ABOUT)
    to.add(AppOptions, "options")
    if wants_help(args):
        print(f"{to.format_help().rstrip()}\n\n{MORE}")
        return OK
    given = to.read(args)
    if given.words or given.knobs:
        word = (given.words or [f"--solver.{next(iter(given.knobs))}"])[0]
        raise InvdiffError(f"`invdiff app` takes no {word!r}; see invdiff app --help.")
    options = fields.build(AppOptions, given.options, name)
    from invdiff.app.page import served

    if options.host not in LOCAL and options.auth is None:
        print(
            f"invdiff: warning: everybody who reaches {options.host} can use this page; --auth "
            "asks for a password",
            file=sys.stderr,
        )
    with terminations_as_interrupts(), served(options) as page:
        say([("page", f"{page.url} (Ctrl-C ends it)")])
        try:
            page.wait()
        except KeyboardInterrupt:
            return OK
    return OK
