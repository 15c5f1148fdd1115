"""What one of two processes does, started by torchrun: train, tell its state, use the CLI."""

import hashlib
import os
import signal
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from invdiff import cli
from invdiff.core import InvdiffError
from invdiff.priors.photo_net import PhotoNetConfig
from invdiff.train import drawings, spectrum
from invdiff.train.data import PatchSampler
from invdiff.train.fit import fit
from invdiff.train.recipe import Recipe
from invdiff.train.trainer import Trainer

RECIPE = Recipe(
    name="tiny",
    net=PhotoNetConfig(widths=(8, 12, 16), blocks=(1, 1, 1), up_blocks=(1, 1), embedding=16),
    attribution="Made by a test.",
    hold_out=("held-",),
    hold_out_one_in=1,
    halves=0.5,
    patch=16,
    batch=4,
    steps=4,
    warmup=2,
    seed=3,
    validation=16,
)
QUIET: dict[str, Any] = {"device": "cpu", "progress": False, "mixed": False}


class Seen:
    """Keeps the trainer that fit made."""

    def __init__(self) -> None:
        self.run: Trainer | None = None
        advance = Trainer.advance

        def advanced(run: Trainer, x0: Tensor) -> Tensor:
            self.run = run
            return advance(run, x0)

        Trainer.advance = advanced  # type: ignore[method-assign]

    def digest(self) -> str:
        """Hash of weights, running mean and moments of this process, which writes them or not."""
        assert self.run is not None
        parts = [*self.run.net.parameters(), *self.run.ema.parameters(), self.run.norm]
        for moments in self.run.optimizer.state.values():
            parts += moments.values()
        hashed = hashlib.sha256()
        for part in parts:
            hashed.update(part.detach().contiguous().numpy().tobytes())
        return hashed.hexdigest()


def terminated_at(step: int) -> None:
    """The second process, and it alone, is told to end when it cuts the patches of a step."""
    cut = PatchSampler.__call__

    def called(self: PatchSampler, now: int) -> Tensor:
        if now == step and os.environ["RANK"] == "1":
            signal.raise_signal(signal.SIGTERM)
        return cut(self, now)

    PatchSampler.__call__ = called  # type: ignore[method-assign]


def command_line(data: Path, out: Path) -> None:
    """`invdiff train` of the first batch; what this process says goes into a file of its own."""
    args = ["train", "fashion28", "--data", str(data), "--out", str(out / "command")]
    args += ["--batch", "2", "--device", "cpu", "--minutes", "1e-9"]
    with (out / f"said{os.environ['RANK']}.txt").open("w") as file, redirect_stdout(file):
        assert cli.main(args) == 0


def main(data: Path, array: Path, out: Path) -> None:
    """Lines NAME DIGEST, into a file for each rank."""
    torch.set_num_threads(1)
    drawings.SAMPLE_STEPS = spectrum.PATCHES = 2
    seen, lines = Seen(), list[str]()
    assert fit(RECIPE, data, out / "whole", **QUIET)
    lines.append(f"whole {seen.digest()}")
    assert fit(RECIPE, data, out / "first", steps=1, **QUIET)
    plain = PatchSampler.__call__
    terminated_at(1)
    try:
        fit(RECIPE, data, out / "resumed", **QUIET)
    except KeyboardInterrupt:
        assert seen.run is not None
        lines.append(f"interrupted {seen.run.step}")
    PatchSampler.__call__ = plain  # type: ignore[method-assign]
    assert fit(RECIPE, data, out / "resumed", resume=True, **QUIET)
    lines.append(f"resumed {seen.digest()}")
    for other, recipe in (("odd", replace(RECIPE, batch=3)), ("seed", RECIPE)):
        if other == "seed":
            recipe = replace(RECIPE, seed=int(os.environ["RANK"]))
        try:
            fit(recipe, data, out / other, **QUIET)
        except InvdiffError as error:
            lines.append(f"{other} {error}")
    command_line(array, out)
    torch.distributed.barrier()
    (out / f"rank{os.environ['RANK']}.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
