"""One item: from its file to its results, or to the sentence that the command line would say."""

from __future__ import annotations

import errno
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from invdiff import __version__
from invdiff.batch import inside
from invdiff.batch.items import BatchItem, seed_of
from invdiff.batch.outputs import hash_of, placed, there, write_results
from invdiff.batch.place import Place, StoppedError
from invdiff.batch.recipe import BatchRecipe
from invdiff.batch.truth import compared, finite, truth_of
from invdiff.core import InvdiffError
from invdiff.core.errors import sentence
from invdiff.restoration.forecast import forecast
from invdiff.restoration.job import Job
from invdiff.restoration.perform import perform
from invdiff.restoration.restored import Restoration
from invdiff.restoration.together import kind, perform_together, room
from invdiff.tasks.truth import Truth

EVERYWHERE = {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE}
"""Errors that the next item would meet too, wherever they came from."""
ASIDE = 8
"""Items of other kinds whose jobs are held while some of one kind are looked for."""


@dataclass
class _Begun:
    """An item whose job is ready, or whose line is known. file: as it lies here, until `close`.

    seconds: what it took so far.
    """

    item: BatchItem
    line: dict[str, Any]
    done: bool = False
    file: Path | None = None
    job: Job | None = None
    truth: Truth | None = None
    seconds: float = 0.0
    opened: ExitStack = field(default_factory=ExitStack)


class Restorer:
    """Restores items by a recipe; keeps the prior, and which shapes are known to fit the memory.

    Small items that are alike run together with some that come next, whose lines it keeps until
    they are asked for.
    """

    def __init__(self, recipe: BatchRecipe) -> None:
        recipe.load_plugins()
        self.recipe, self.config = recipe, recipe.digest
        self.prior = recipe.loaded_prior()
        self._fits = set[tuple[Any, ...]]()
        self._ready = dict[str, _Begun]()
        self._about = {
            "config": self.config, "invdiff": __version__,
            "torch": torch.__version__, "prior": self.prior.fingerprint,
        }  # fmt: skip

    def __call__(
        self, place: Place, item: BatchItem, ahead: Sequence[BatchItem] = ()
    ) -> dict[str, Any]:
        """The line of an item, whose results lie there; of one that failed, with `error`.

        ahead: items that are asked for next. Raises StoppedError for what would meet every item, as
        a full disk.
        """
        begun = self._begun(place, item)
        if not begun.done:
            group = [begun, *self._alike(place, begun, ahead)]
            for one, restored in zip(group, self._run(group), strict=True):
                self._end(place, one, restored)
        return self._ready.pop(item.id).line

    def _begun(self, place: Place, item: BatchItem) -> _Begun:
        """An item with its job, or with its line where that is known already."""
        if item.id in self._ready:
            return self._ready[item.id]
        began = time.perf_counter()
        about = {"id": item.id, "seed": seed_of(self.recipe.seed, item.id), **self._about}
        self._ready[item.id] = begun = _Begun(item, about)
        try:
            begun.file = file = begun.opened.enter_context(_file(item))
            begun.line["input"] = hash_of(file, *self.recipe.sidecars(item, file).values())
            found = there(place, item, begun.line)
            if found is not None:
                begun.line, begun.done = found, True
                begun.opened.close()
                return begun
            task = self.recipe.task_of(item, file)
            begun.job = self.recipe.job(item, file, self.prior, task)
            truth = self.recipe.sidecars(item, file).get("truth")
            if truth is not None:
                begun.truth = truth_of(truth, item, file, task, begun.job)
            self._check_memory(begun.job)
        except Exception as error:
            _fail(begun, error)
        begun.seconds += time.perf_counter() - began
        return begun

    def _alike(self, place: Place, begun: _Begun, ahead: Sequence[BatchItem]) -> list[_Begun]:
        """Items of those ahead that can run with another, as many as there is room for."""
        assert begun.job is not None
        most = room(begun.job, self.recipe.batch)
        mine = kind(begun.job) if most > 1 and ahead else None
        found, aside = list[_Begun](), 0
        for item in ahead if mine is not None else ():
            if len(found) == most - 1 or aside == ASIDE:
                break
            other = self._begun(place, item)
            if other.job is not None and not other.done:
                same = kind(other.job) == mine
                found += [other] * same
                aside += not same
                if room(other.job) == 1:  # a large one: no more of these are held
                    break
        return found

    def _run(self, group: list[_Begun]) -> list[Restoration | None]:
        """What jobs give that can run together; None for one that failed, which is told."""
        if len(group) > 1:
            began = time.perf_counter()
            try:
                done = perform_together([one.job for one in group if one.job is not None])
            except Exception:
                return [found for one in group for found in self._run([one])]
            for one in group:
                one.seconds += (time.perf_counter() - began) / len(group)
            return list(done)
        (one,) = group
        began = time.perf_counter()
        try:
            assert one.job is not None
            return [perform(one.job, quiet=True)]
        except Exception as error:
            _fail(one, error)
            return [None]
        finally:
            one.seconds += time.perf_counter() - began

    def _end(self, place: Place, one: _Begun, restored: Restoration | None) -> None:
        """Write what an item gave; its line is then known."""
        if restored is None:
            return
        try:
            told = _told(restored)
            told["warnings"] = [_of_file(text, one.item, one.file) for text in told["warnings"]]
            if one.truth is not None:
                told |= compared(restored, one.truth)
            told["seconds"] = round(one.seconds, 4)
            one.line = placed(
                place, one.item, one.line | told, lambda folder: write_results(restored, folder)
            )
        except StoppedError:
            raise
        except Exception as error:
            _fail(one, error)
            return
        one.done, one.job = True, None
        one.opened.close()

    def _check_memory(self, job: Job) -> None:
        """Raise InvdiffError where the memory will not do, measured once for each shape."""
        key = (job.posed.problem.x_shape, job.problem.batch, job.solver.name, job.batch)
        if key not in self._fits:
            forecast(job)
            self._fits.add(key)


def _fail(begun: _Begun, error: Exception) -> None:
    """Note why an item failed, in a sentence. Raises StoppedError for what the next would meet."""
    begun.opened.close()
    if isinstance(error, StoppedError):
        raise error
    if isinstance(error, OSError) and error.errno in EVERYWHERE:
        raise StoppedError(sentence(error)) from error
    known = "input" if isinstance(error, InvdiffError) else "other"
    said = _of_file(sentence(error), begun.item, begun.file)
    begun.line = begun.line | {"error": said, "kind": known, "seconds": round(begun.seconds, 4)}
    begun.done, begun.job = True, None


@contextmanager
def _file(item: BatchItem) -> Iterator[Path]:
    """The file of an item, as it lies on this machine for the block."""
    if not item.within:
        yield Path(item.path)
        return
    with tempfile.TemporaryDirectory(prefix="invdiff-") as folder:
        yield inside.unpacked(item.path, item.within, Path(folder))


def _of_file(said: str, item: BatchItem, file: Path | None) -> str:
    """A sentence about a file that was unpacked, with the one that it came from."""
    if file is None or file == Path(item.path):
        return said
    return said.replace(str(file.parent), item.path)


def _told(done: Restoration) -> dict[str, Any]:
    """What is known of a result: its cost, its misfit, what seems wrong."""
    checks = done.result.config.get("checks", {})
    misfit = {
        name: None if check["misfit"] is None else [finite(m) for m in check["misfit"]]
        for name, check in checks.items()
    }
    cost = {k.replace(" ", "_"): v for k, v in done.cost.items() if k != "seconds"}
    return {
        "solvers": done.solvers, "size": list(done.view.size(tuple(done.problem.x_shape))),
        "cost": cost, "misfit": misfit, "warnings": list(done.warnings),
    }  # fmt: skip
