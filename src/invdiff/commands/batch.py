"""`invdiff batch`: the same restoration of many files, on one machine or on many."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from invdiff import fields, plugins
from invdiff.batch.clips import animated
from invdiff.batch.drive import Count, count, drive
from invdiff.batch.items import ItemSource
from invdiff.batch.packed import swept
from invdiff.batch.place import Place, StoppedError
from invdiff.batch.plan import planned
from invdiff.batch.ranks import rank_and_world
from invdiff.batch.recipe import BatchRecipe
from invdiff.batch.report import write_report
from invdiff.batch.settings import OF_ONE, BatchOptions
from invdiff.batch.status import status
from invdiff.batch.workers import Crew, Here, Processes
from invdiff.cli import FAILED, INTERRUPTED, OK
from invdiff.commands import asked
from invdiff.commands.common import (
    FileOptions,
    PriorOptions,
    RunOptions,
    say,
    tell,
    terminations_as_interrupts,
)
from invdiff.commands.parser import Given, Parser, wants_help
from invdiff.core import InvdiffError
from invdiff.tasks import TASKS, task_class

SOME_FAILED = 3
"""The exit code of a run that ended, and of which items failed."""
USAGE = "TASK IN --out OUT [options]\n       invdiff batch --status OUT"
ABOUT = """Restore many images with one command. IN is a folder, a glob in quotes, several files, a
list of files (.txt, a path a line), tar files as webdataset has them, or parquet files with a
column of images; of photographs each page of a TIFF is an image, and each frame of an animation
(GIF, WebP, .apng) or a video (extra `video`); with a prior of clips all frames together are one.
Options of the task may be patterns: --mask '{stem}-mask.png' takes what lies beside each image.

OUT/items mirrors the input, OUT/manifest has a JSON line for each image, OUT/report.html shows the
worst first. The same command goes on after whatever stopped it, and adds what is new in IN. An
image that fails is told with the sentence of `invdiff restore`, and the rest goes on.

Exit codes: 0 all is done, 3 some images failed, 1 the machine refused (a full disk), 2 wrong
options, 130 interrupted."""
COMMON = (RunOptions, PriorOptions, FileOptions, BatchOptions)


def run(name: str, args: list[str]) -> int:
    """Restore many files; the exit code."""
    if wants_help(args):
        print(help_on(name, args))
        return OK
    if any(a.partition("=")[0] in ("--status", "--report") for a in args):
        return _looked(name, args)
    recipe, words, how, quiet = _wanted(name, args)
    rank, world = (0, 1) if how.cluster else rank_and_world(os.environ)
    if how.rank is not None and how.world is not None:
        rank, world = how.rank, how.world
    place, source = Place(how.out), _source(words, recipe, how)
    try:
        with terminations_as_interrupts():
            crew = _crew(place, how)
            counts = planned(place, source, recipe, how.shard_size, world > 1, how.tar)
            _tell_plan(words, counts, place)
            before = count(place)
            with _bar(before, quiet, rank) as moved:
                drive(place, crew, how.retry_failed, rank, world, moved)
            return _ended(place, rank, world, how.animate)
    except KeyboardInterrupt:
        command = shlex.join(["invdiff", name, *args, *plugins.flags()])
        tell(f"invdiff: interrupted{_so_far(place)}; go on with: {command}")
        return INTERRUPTED
    except StoppedError as error:
        tell(f"invdiff: {str(error).rstrip('.')}{_so_far(place)}; the same command goes on.")
        return FAILED


def _crew(place: Place, how: BatchOptions) -> Crew:
    """Who works. Raises InvdiffError where Ray is missing."""
    if how.cluster is not None:
        from invdiff.batch.cluster import Cluster

        return Cluster(place, how.cluster, max(1, how.workers))
    return Processes(place, how.workers) if how.workers else Here(place)


def _source(words: Sequence[str], recipe: BatchRecipe, how: BatchOptions) -> ItemSource:
    """Where the items come from."""
    return ItemSource(
        tuple(words), recipe.patterns, how.out, recipe.kind.folders,
        recipe.kind.folders and "series" not in recipe.options,
        recipe.pictures, how.column,
    )  # fmt: skip


def _tell_plan(words: Sequence[str], counts: dict[str, int], place: Place) -> None:
    shown = words[0] if len(words) == 1 else f"{len(words)} files"
    said = f"{counts['items']} from {shown}"
    if counts["new"] and counts["new"] != counts["items"]:
        said += f", {counts['new']} of them new"
    lines = [("items", said)]
    if counts["passed"]:
        lines.append(("", f"{counts['passed']} files of other kinds were passed over"))
    say([*lines, ("results", f"{place.out}, how far: invdiff batch --status {place.out}")])


@contextmanager
def _bar(before: Count, quiet: bool, rank: int) -> Iterator[Callable[[bool], None]]:
    """A progress bar with the rate and the time that is left, and what moves it."""
    total, failed = before.items, 0
    with tqdm(
        total=total, initial=before.done, unit="item", desc=f"rank {rank}" if rank else "batch",
        disable=quiet, dynamic_ncols=True,
    ) as bar:  # fmt: skip

        def moved(ok: bool) -> None:
            nonlocal failed
            if not ok:
                failed += 1
                bar.set_postfix(failed=failed, refresh=False)
            bar.update(1)

        yield moved


def _so_far(place: Place) -> str:
    """How far it is, for a sentence; "" where nothing is known."""
    try:
        found = count(place)
    except (InvdiffError, OSError, LookupError):
        return ""
    return f" with {found.shards} of {found.all} shards finished"


def _ended(place: Place, rank: int, world: int, animate: bool) -> int:
    """Tell how many were restored and how many failed; the exit code. animate: with OUT/videos.

    One of several processes fails with the machine alone: else its launcher would end the others.
    """
    found = count(place)
    if found.complete:
        if place.told().get("tar", False):
            swept(place)
        if animate:
            made, left = animated(place)
            say([("videos", f"{len(made)} in {place.out / 'videos'}")])
            for sentence in left:
                tell(f"invdiff: warning: {sentence}")
        say([("report", str(write_report(place)))])
    done = f"{found.done - found.failed} of {found.items} items restored, {found.failed} failed"
    if world > 1:
        done = f"rank {rank} of {world}: {done}"
    if found.failed:
        done += f"; see {place.report}, --retry-failed restores them again"
    if not found.complete:
        done += f"; others are at {found.all - found.shards} shards"
    say([("done", done)])
    return SOME_FAILED if found.failed and world == 1 else OK


def _looked(name: str, args: Sequence[str]) -> int:
    """--status OUT and --report OUT: how far a batch is, and its page."""
    to = Parser(name, "--status OUT", ABOUT)
    to.add_argument("--status", metavar="OUT")
    to.add_argument("--report", metavar="OUT")
    given = to.read(args)
    if given.words or len(given.options) != 1:
        raise InvdiffError(f"--status and --report take OUT alone: invdiff {name} --status OUT.")
    ((what, out),) = given.options.items()
    place = Place(out)
    found = status(place)
    if what == "report":
        say([("report", str(write_report(place)))])
        return OK
    say(found.lines())
    return SOME_FAILED if found.count.failed else OK


def _parser(name: str, task: str) -> Parser:
    cls = task_class(task)
    to = Parser(name, f"{task} IN --out OUT [options]", f"{cls.summary()}, in many images.")
    to.add(cls, f"options of {task}")
    to.add(BatchOptions, "options of the batch")
    to.add(RunOptions, "options of each run", without=OF_ONE)
    to.add(PriorOptions, "the prior")
    to.add(FileOptions, "files of options", without={"print_config"})
    return to


def _wanted(name: str, args: Sequence[str]) -> tuple[BatchRecipe, list[str], BatchOptions, bool]:
    """What a command line, with its YAML file, asks for."""
    task, rest = asked.split(name, args)

    def known(task: str) -> tuple[type, ...]:
        return (task_class(task), *COMMON)

    if task is None:
        bare = Parser(name, "--config FILE", ABOUT)
        for cls in COMMON:
            bare.add(cls, "", without=OF_ONE if cls is RunOptions else {"print_config"})
        task = asked.with_config(bare, bare.read(rest), None, known)
    to = _parser(name, task)
    given = to.read(rest)
    asked.with_config(to, given, task, known)
    if not given.words:
        raise InvdiffError(
            f"IN is missing: invdiff {name} {task} IN --out OUT, with a folder, a glob or a list."
        )
    how = fields.build(BatchOptions, to.of(BatchOptions, given), name)
    one = fields.build(RunOptions, _of_each(to, given), name)
    prior = fields.build(PriorOptions, to.of(PriorOptions, given), name)
    recipe = BatchRecipe(
        task, to.of(task_class(task), given), one.solver, dict(given.knobs), one.steps, one.samples,
        one.seed, one.batch, one.want, one.precision, one.device, prior.prior, prior.told(),
        prior.no_check, how.truth, tuple(dict.fromkeys(map(_from_root, plugins.ASKED))),
    )  # fmt: skip
    return recipe.checked(), given.words, how, one.quiet


def _of_each(to: Parser, given: Given) -> dict[str, Any]:
    return {k: v for k, v in to.of(RunOptions, given).items() if k not in OF_ONE}


def _from_root(spec: str) -> str:
    """A plugin as processes in other folders find it."""
    return os.path.abspath(spec) if Path(spec).suffix == ".py" else spec


def _example(task: str) -> str:
    """The example of a task, with patterns for the files beside the image."""
    rest = task_class(task).example.split()[1:]
    near = [f"'{{stem}}-{word}'" if re.search(r"\.(png|npy)$", word) else word for word in rest]
    return " ".join(["photos", *near])


def help_on(name: str, args: Sequence[str]) -> str:
    """Help on the command, or on a task."""
    plugins.load_installed()
    task = next((a for a in args if a in TASKS), None)
    if task is not None:
        text = _parser(name, task).format_help().rstrip()
        return f"{text}\n\n  invdiff {name} {task} {_example(task)} --out restored"
    lines = [Parser(name, USAGE, ABOUT).format_help().rstrip(), "", "tasks:"]
    lines += [f"  {t:<20}{cls.summary()}" for t, cls in TASKS.items()]
    lines += ["", f"`invdiff {name} TASK --help` tells the options of a task; docs/batch.md tells"]
    return "\n".join([*lines, "what is written, and how torchrun, SLURM and Ray share the work."])
