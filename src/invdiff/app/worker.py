"""The process that does jobs, one at a time, on one device: the page lives on if it dies."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from invdiff import plugins
from invdiff.app.asked import AskedAgain, AskedJob, AskedRace, HowOptions
from invdiff.app.messages import Begun, Done, Failed, Message, Passed, Running, Stopped
from invdiff.core.errors import InvdiffError, sentence
from invdiff.restoration.checkpoint import Checkpoints
from invdiff.restoration.perform import Progress, perform
from invdiff.restoration.preview import Following, Preview
from invdiff.restoration.race import race
from invdiff.tasks.base import View

EVERY, PICTURES = 0.5, 1.0
"""Seconds between two messages, and between two with pictures: they cost time of the job."""
SIDE, MOST = 320, 4
"""Of previews: pixels of a side of one alone, and how many are shown."""
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
Send = Callable[[Message], None]


class Halt(Exception):
    """The job is to end now."""


def work(pipe: Connection, stop: Any, specs: list[str], device: str) -> None:
    """Do what comes through the pipe, and tell how it goes, until the pipe is closed.

    stop: an event that ends the job under way. specs: plugins. Its folder is empty, so that a name
    without a folder is no file.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.update(OFFLINE)
    with tempfile.TemporaryDirectory() as empty:
        os.chdir(empty)
        try:
            plugins.load_installed()
            for spec in specs:
                plugins.load(spec)
            rehearse(pipe, empty, device)
            while True:
                asked = pipe.recv()
                try:
                    do(asked, pipe.send, stop.is_set, device)
                except OSError as error:
                    if isinstance(error, BrokenPipeError):
                        raise
                    pipe.send(Failed(sentence(error)))
                except Exception as error:
                    pipe.send(Failed(sentence(error)))
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return
        finally:
            os.chdir("/")


def rehearse(pipe: Connection, folder: str, device: str) -> None:
    """A tiny job that nobody sees, so that the first one that is seen finds all in memory. It gives
    way to what comes through the pipe."""
    if pipe.poll():
        return
    with tempfile.TemporaryDirectory(dir=folder) as room, suppress(Exception):
        photo = Path(room) / "photo.npy"  # what fails here is told of the job that is asked for
        np.save(photo, np.full((16, 16, 3), 0.5, np.float32))
        how = HowOptions(samples=2, steps=1)
        asked = AskedJob("denoise", str(photo), str(Path(room) / "out"), {"noise": "0.1"}, how)
        do(asked, lambda message: None, pipe.poll, device)


def do(asked: Any, send: Send, stopped: Callable[[], bool], device: str) -> None:
    """One job; the last message tells how it ended."""
    if isinstance(asked, AskedRace):
        _race(asked, send, stopped, device)
    else:
        _restore(asked, send, stopped, device)


def _restore(
    asked: AskedJob | AskedAgain, send: Send, stopped: Callable[[], bool], device: str
) -> None:
    job, out = asked.job(device), Path(asked.out)
    send(Begun(job.lines))
    kept = Checkpoints(job, out, every=0)
    try:
        start = _stopped(kept) if asked.resume else Progress()
        follow = Following(job, _Seen(send, stopped, job.view), start)
        done = perform(
            job, start.samples, follow.watch, True, start.estimate, follow.watch_estimate
        )
        done.save(out, overwrite=True)
        kept.remove()
        send(Done(str(out)))
    except Halt:
        kept.progress = follow.progress
        kept.save()
        steps, total = _steps(follow.progress)
        send(Stopped(steps, total, True))
    finally:
        kept.leave()


def _stopped(kept: Checkpoints) -> Progress:
    """Where a run was stopped. Raises InvdiffError where that cannot be told any more."""
    if not kept.there:
        raise InvdiffError("What was stopped is not there any more; press Restore to begin anew.")
    try:
        return kept.load()
    except InvdiffError as error:
        raise InvdiffError(
            "What was stopped cannot go on, because its checkpoint is broken or of other files; "
            "press Restore to begin anew."
        ) from error


def _steps(progress: Progress) -> tuple[int, int]:
    last = progress.samples or progress.estimate
    return (0, 0) if last is None else (last.steps_done, last.steps * last.chunks)


class _Seen:
    """Tells previews, not too often."""

    def __init__(self, send: Send, stopped: Callable[[], bool], view: View) -> None:
        self.send, self.stopped, self.view = send, stopped, view
        self._told = self._pictured = -1e9

    def __call__(self, preview: Preview) -> None:
        if self.stopped():
            raise Halt
        now, first = time.monotonic(), self._pictured < 0 and preview.steps_done > 0
        if now - self._told < EVERY and preview.steps_done < preview.steps and not first:
            return
        self._told = now
        pictures: tuple[np.ndarray, ...] = ()
        if preview.steps_done and now - self._pictured >= PICTURES:
            self._pictured = now
            values = preview.values(MOST)
            pictures = tuple(small(self.view, v, len(values)) for v in values)
        self.send(
            Running(
                preview.part, preview.steps_done, preview.steps, preview.evaluations, preview.left,
                pictures,
            )
        )  # fmt: skip


def small(view: View, values: Tensor, beside: int = 1) -> np.ndarray:
    """A picture of values as bytes, (H, W) or (H, W, 3), averaged down to a preview."""
    pixels = view.picture(values).detach().float().cpu()
    side = SIDE if beside == 1 else SIDE * 3 // 4
    factor = -(-max(pixels.shape[-2:]) // side)
    if factor > 1:
        pixels = F.avg_pool2d(pixels[None], factor, ceil_mode=True)[0]
    levels = (pixels.nan_to_num() * 255).round().clamp(0, 255).to(torch.uint8)
    array: np.ndarray = levels.permute(1, 2, 0).squeeze(2).numpy()
    return array


def _race(asked: AskedRace, send: Send, stopped: Callable[[], bool], device: str) -> None:
    job = asked.of.job(device)
    send(Begun(job.lines))
    began, pictured = time.monotonic(), dict[str, float]()
    for lap in race(job, asked.of.built(), asked.solvers, asked.cost):
        now, picture = time.monotonic(), None
        if now - pictured.get(lap.solver, -1e9) >= PICTURES or lap.step == lap.steps:
            pictured[lap.solver] = now
            picture = small(job.view, lap.values, len(asked.solvers))
        send(
            Passed(
                lap.solver, lap.step, lap.steps, lap.evaluations, lap.gradients, lap.cost,
                lap.misfit, now - began, picture,
            )
        )  # fmt: skip
        if stopped():
            send(Stopped(lap.step, lap.steps, False))
            return
    send(Done(""))
