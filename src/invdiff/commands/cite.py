"""`invdiff cite`: what to cite for a run, or for solvers and priors by their names.

Help needs no torch: what loads it is imported within functions.
"""

from __future__ import annotations

import argparse
import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from invdiff import __version__
from invdiff.cite.references import Reference, entry, unique
from invdiff.cli import OK

if TYPE_CHECKING:
    from invdiff.cite.citations import Source

USAGE = "invdiff cite [RUN | --solver NAME ... --prior NAME ...] [--format FORMAT]"
ABOUT = """Tell what to cite: invdiff, the papers of the solver and of the estimator, the sources of
the operator and of the noise, and the data that the prior was trained on.

RUN is a folder that `restore` or Result.save wrote, or its run.json. Without RUN, name solvers and
priors; each option may be given several times. Nothing is told that the code and its cards do not
say: BibTeX entries have family names alone, and no title where none is stated."""
AUTHORS, TITLE = "The invdiff contributors", "invdiff: recover images from measurements"
"""As in CITATION.cff."""


class _Parser(argparse.ArgumentParser):
    """Failures are one sentence, as those of the other commands."""

    def error(self, message: str) -> NoReturn:
        from invdiff.core import InvdiffError

        lacking = re.fullmatch(r"argument (--\S+): expected one argument", message)
        if lacking:
            raise InvdiffError(f"{lacking[1]} needs a value.")
        raise InvdiffError(f"{message}; see invdiff cite --help.")

    def read(self, args: list[str]) -> argparse.Namespace:
        """What was given. Raises InvdiffError for an option that is not there, and two runs."""
        given, rest = self.parse_known_args(args)
        for word in rest:
            from invdiff.core import InvdiffError, nearest

            if word.startswith("-"):
                raise nearest(word.partition("=")[0], self._option_string_actions, "option")
            raise InvdiffError(f"There is one {word!r} too many; quote names that hold spaces.")
        return given


def parser() -> _Parser:
    """The options of the command."""
    to = _Parser(
        prog="invdiff cite",
        usage=USAGE,
        description=ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    to.add_argument("run", nargs="?", metavar="RUN", help="folder of a run, or its run.json")
    add = to.add_argument
    add("--solver", action="append", metavar="NAME", help="a solver; `invdiff solvers` lists them")
    add("--prior", action="append", metavar="NAME", help="a prior, as `restore --prior` takes it")
    add("--format", default="text", metavar="FORMAT", help="text (default) or bibtex")
    return to


def run(name: str, args: list[str]) -> int:
    """Print what to cite; the exit code."""
    given = parser().read(args)
    from invdiff.cite import citations
    from invdiff.core import InvdiffError
    from invdiff.solvers import solver_class

    if given.format not in FORMATS:
        raise InvdiffError(f"--format is text or bibtex, found {given.format}.")
    if given.run is not None and (given.solver or given.prior):
        raise InvdiffError("A run tells its solver and its prior; leave --solver and --prior out.")
    if given.run is not None:
        version, sources = citations.of_run(Path(given.run))
    else:
        version = __version__
        sources = [s for n in given.solver or () for s in citations.of_solver(solver_class(n))]
        sources += [citations.of_prior(_prior(n)) for n in given.prior or ()]
    print(FORMATS[given.format](version, sources))
    return OK


def _prior(name: str) -> str:
    """The name; InvdiffError where it is neither a prior of ours, nor a path, nor hf:OWNER/NAME."""
    from invdiff.core import nearest
    from invdiff.priors.hub import local
    from invdiff.priors.load import BUILT_IN

    if name in BUILT_IN or re.fullmatch(r"(hf:)?[\w.-]+/[\w.-]+", name) or local(name):
        return name
    raise nearest(name, BUILT_IN, "prior")


def text(version: str, sources: list[Source]) -> str:
    """What to cite, for reading."""
    lines = ["invdiff", f"  {AUTHORS}, {TITLE}, version {version}"]
    for source in sources:
        lines += ["", source.what]
        papers = [r.text() for r in source.references if r.findable or not source.words]
        for one in filter(None, [source.words, *papers]):
            lines += textwrap.wrap(one, 98, initial_indent="  ", subsequent_indent="    ")
    return "\n".join(lines)


def bibtex(version: str, sources: list[Source]) -> str:
    """The same as BibTeX; what is no paper is a comment."""
    software = {"author": f"{{{AUTHORS}}}", "title": f"{{{TITLE}}}", "version": version}
    parts = [entry("software", "invdiff", software)]
    seen: list[Reference] = []
    for source in sources:
        new = unique([*seen, *source.references])[len(seen) :]
        seen += new
        words = f"{source.what}: {source.words}" if source.words else source.what
        comment = textwrap.wrap(words.replace("@", "(at)"), 98, initial_indent="% ",
                                subsequent_indent="% ")  # fmt: skip
        parts.append("\n".join([*comment, *(r.bibtex() for r in new)]))
    return "\n\n".join(parts)


FORMATS = {"text": text, "bibtex": bibtex}
