"""One item: from its file to its results, or to the sentence that the command line would say."""

from __future__ import annotations

import errno
import math
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from invdiff import __version__
from invdiff.batch import inside
from invdiff.batch.items import BatchItem, seed_of
from invdiff.batch.outputs import hash_of, placed, there, write_results
from invdiff.batch.place import Place, StoppedError
from invdiff.batch.recipe import BatchRecipe
from invdiff.core import InvdiffError
from invdiff.core.errors import sentence
from invdiff.files.pictures import read_photo
from invdiff.problem.metrics import psnr
from invdiff.restoration.forecast import forecast
from invdiff.restoration.job import Job
from invdiff.restoration.perform import perform
from invdiff.restoration.restored import Restoration

EVERYWHERE = {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE}
"""Errors that the next item would meet too, wherever they came from."""


class Restorer:
    """Restores items by a recipe; keeps the prior, and which shapes are known to fit the memory."""

    def __init__(self, recipe: BatchRecipe) -> None:
        recipe.load_plugins()
        self.recipe, self.config = recipe, recipe.digest
        self.prior = recipe.loaded_prior()
        self._fits = set[tuple[Any, ...]]()
        self._about = {
            "config": self.config, "invdiff": __version__,
            "torch": torch.__version__, "prior": self.prior.fingerprint,
        }  # fmt: skip

    def __call__(self, place: Place, item: BatchItem) -> dict[str, Any]:
        """The line of an item, whose results lie there; of one that failed, with `error`.

        Raises StoppedError for what would meet every item, as a full disk.
        """
        began, file = time.perf_counter(), None
        known = {"id": item.id, "seed": seed_of(self.recipe.seed, item.id), **self._about}
        try:
            with _file(item) as file:
                known["input"] = hash_of(file, *self.recipe.sidecars(item, file).values())
                found = there(place, item, known)
                return self._restored(place, item, file, known) if found is None else found
        except StoppedError:
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno in EVERYWHERE:
                raise StoppedError(sentence(error)) from error
            kind = "input" if isinstance(error, InvdiffError) else "other"
            spent = round(time.perf_counter() - began, 4)
            said = _of_file(sentence(error), item, file)
            return known | {"error": said, "kind": kind, "seconds": spent}

    def _restored(
        self, place: Place, item: BatchItem, file: Path, known: dict[str, Any]
    ) -> dict[str, Any]:
        began = time.perf_counter()
        truth = self.recipe.sidecars(item, file).get("truth")
        clean = None if truth is None else _clean(truth)
        job = self.recipe.job(item, file, self.prior)
        self._check_memory(job)
        done = perform(job, quiet=True)
        told = _told(done)
        if clean is not None:
            told["psnr"] = _psnr(done, clean)
        told["warnings"] = [_of_file(text, item, file) for text in told["warnings"]]
        told["seconds"] = round(time.perf_counter() - began, 4)
        return placed(place, item, known | told, lambda folder: write_results(done, folder))

    def _check_memory(self, job: Job) -> None:
        """Raise InvdiffError where the memory will not do, measured once for each shape."""
        key = (job.posed.problem.x_shape, job.problem.batch, job.solver.name, job.batch)
        if key not in self._fits:
            forecast(job)
            self._fits.add(key)


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
    return said.replace(str(file.parent), item.path) if item.within and file else said


def _told(done: Restoration) -> dict[str, Any]:
    """What is known of a result: its cost, its misfit, what seems wrong."""
    checks = done.result.config.get("checks", {})
    misfit = {
        name: None if check["misfit"] is None else [_finite(m) for m in check["misfit"]]
        for name, check in checks.items()
    }
    cost = {k.replace(" ", "_"): v for k, v in done.cost.items() if k != "seconds"}
    return {
        "solvers": done.solvers, "size": list(done.view.size(tuple(done.problem.x_shape))),
        "cost": cost, "misfit": misfit, "warnings": list(done.warnings),
    }  # fmt: skip


def _finite(number: float) -> float | None:
    """A number as JSON has it, to 6 digits; None for what JSON has not."""
    return float(f"{number:.6g}") if math.isfinite(number) else None


def _clean(path: Path) -> np.ndarray:
    """A clean picture, (H, W) or (H, W, 3) on [0, 1]. Raises InvdiffError where there is none."""
    found = read_photo(path).pixels
    return np.asarray(found.permute(1, 2, 0).squeeze(2).numpy())


def _psnr(done: Restoration, clean: np.ndarray) -> dict[str, float | None]:
    """PSNR in dB on [0, 1] of the estimate and of what stands for the samples."""
    images = {} if done.want == "samples" else {"estimate": done.estimate}
    images |= {done.view.stands: done.mean} if done.drawn and done.want != "estimate" else {}
    found: dict[str, float | None] = {}
    for name, image in images.items():
        if image.shape != clean.shape:
            raise InvdiffError(
                f"--truth is of shape {clean.shape}, and the result of {image.shape}; give the "
                "clean picture of the same size."
            )
        pair = [torch.from_numpy(np.ascontiguousarray(a, np.float64))[None] for a in (image, clean)]
        found[name] = _finite(float(psnr(pair[0], pair[1], (0.0, 1.0))))
    return found
