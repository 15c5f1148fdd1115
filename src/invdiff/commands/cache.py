"""`invdiff cache`: what is kept between runs."""

from __future__ import annotations

from dataclasses import dataclass

from invdiff import fields
from invdiff.cli import OK
from invdiff.commands.common import say
from invdiff.commands.parser import Parser, wants_help
from invdiff.core import InvdiffError, cache
from invdiff.core.limits import in_words
from invdiff.core.option import option

ABOUT = f"""What is kept between runs: matrices of scans, and published weights as they were
converted. All of it is made again when it is needed, so that clearing costs time alone. At most
{in_words(cache.LIMIT)} are kept; what was used least recently goes first. The variable
{cache.CACHE} names the folder, or is off."""


@dataclass(frozen=True, kw_only=True)
class CacheOptions:
    """What is done."""

    show: bool = option("list the files and their sizes, as without any option", False)
    clear: bool = option("delete them", False)

    def __post_init__(self) -> None:
        if self.show and self.clear:
            raise InvdiffError("Give --show or --clear, and not both.")


def run(name: str, args: list[str]) -> int:
    """List or clear the cache; the exit code."""
    to = Parser(name, "[--show | --clear]", ABOUT)
    to.add(CacheOptions, "options")
    if wants_help(args):
        print(to.format_help().rstrip())
        return OK
    given = to.read(args)
    if given.words or given.knobs:
        raise InvdiffError("`invdiff cache` takes --show or --clear; see invdiff cache --help.")
    how = fields.build(CacheOptions, to.of(CacheOptions, given), name)
    where = cache.folder()
    if where is None:
        say([("cache", f"off ({cache.CACHE}), nothing is kept")])
    elif how.clear:
        count = len(cache.held())
        say([("cleared", f"{where}: {count} files, {in_words(cache.clear())}")])
    else:
        say(_lines())
    return OK


def _lines() -> list[tuple[str, str]]:
    """The folder, and its files with their sizes."""
    where, files = cache.folder(), cache.held()
    sizes = {f: f.stat().st_size for f in files if f.exists()}
    total = in_words(sum(sizes.values()))
    listed = [("", f"{in_words(size):>8}  {f.name}") for f, size in sizes.items()]
    return [("cache", f"{where}: {len(sizes)} files, {total} of {in_words(cache.LIMIT)}"), *listed]
