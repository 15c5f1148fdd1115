"""Pictures beside the card: how the loss fell, and samples without a measurement."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from invdiff.core.schedules import Karras
from invdiff.files.figures import new_figure
from invdiff.files.pictures import save_picture
from invdiff.noise import GaussianNoise
from invdiff.operators.algebra import Identity
from invdiff.priors.base import Prior
from invdiff.problem import Problem
from invdiff.sampling.run import solve
from invdiff.solvers.unconditional import Unconditional

SAMPLE_STEPS = 50


def read_log(path: Path) -> list[dict[str, Any]]:
    """The rows of a log by step; of a step that was repeated after a resume, the last.

    A line that an interruption cut short is left out.
    """
    rows = {}
    for line in path.read_text().splitlines():
        try:
            row = json.loads(line)
            rows[int(row["step"])] = row
        except (ValueError, KeyError, TypeError):
            continue
    return [rows[step] for step in sorted(rows)]


def draw_curve(rows: list[dict[str, Any]], path: Path) -> None:
    """Write the losses over the steps and, where it was measured, the PSNR of held-out images."""
    measured = [row for row in rows if "held_out_loss" in row]
    figure = new_figure(9.0 if measured else 4.6, 3.4)
    figure.set_layout_engine("constrained")
    panels = figure.subplots(1, 2 if measured else 1, squeeze=False)[0]
    losses = panels[0]
    losses.plot(*_line(rows, "loss"), color="0.6", lw=1, marker=".", ms=3, label="training batches")
    if measured:
        losses.plot(*_line(measured, "held_out_loss"), marker="o", ms=3, label="held-out images")
        for sigma in measured[-1]["psnr"]:
            x = [row["step"] for row in measured]
            y = [row["psnr"].get(sigma, float("nan")) for row in measured]
            panels[1].plot(x, y, marker="o", ms=3, label=f"sigma {sigma}")
        panels[1].set_ylabel("PSNR of held-out images (dB)")
    losses.set_ylabel("loss")
    losses.set_yscale("log")
    for axes in panels:
        axes.set_xlabel("step")
        axes.legend(fontsize=8)
        axes.grid(alpha=0.3)
        axes.tick_params(labelsize=8)
    _whole(path, figure.savefig)


def _line(rows: list[dict[str, Any]], key: str) -> tuple[list[int], list[float]]:
    return [row["step"] for row in rows], [row[key] for row in rows]


def draw_samples(
    prior: Prior, shape: tuple[int, ...], path: Path, device: str = "cpu", count: int = 12
) -> None:
    """Write a sheet of samples without a measurement, six in a row."""
    x = draw(prior, shape, count, SAMPLE_STEPS, device)
    rows = [x[k : k + 6] for k in range(0, count, 6)]
    _whole(path, lambda part: save_picture(part, sheet(rows)))


def draw(
    prior: Prior, shape: tuple[int, ...], count: int, steps: int, device: str = "cpu"
) -> Tensor:
    """Samples without a measurement, (count, *shape), on the CPU; always the same."""
    y = torch.zeros(1, *shape, device=device)
    problem = Problem(y, Identity(), GaussianNoise(1.0), shape)
    solver = Unconditional(schedule=Karras(steps, 80.0, 0.01))
    return solve(problem, prior, solver, samples=count, seed=0, batch=16).samples[0].cpu()


def visible(x: Tensor) -> Tensor:
    """Images (n, C, ...) as grey or colour pictures on [0, 1]; complex ones as their magnitude."""
    if x.ndim == 5:
        x = x[:, :, x.shape[2] // 2]
    if x.shape[1] == 2:
        return x.square().sum(1, keepdim=True).sqrt().clamp(0, 1)
    return ((x + 1) / 2).clamp(0, 1)


def sheet(rows: list[Tensor]) -> Tensor:
    """Rows of images (n, C, ...) with white between them, one picture (C, H, W) on [0, 1]."""
    lines = [torch.cat(list(F.pad(visible(x), (2, 2, 2, 2), value=1.0)), dim=-1) for x in rows]
    width = max(line.shape[-1] for line in lines)
    return torch.cat([F.pad(x, (0, width - x.shape[-1]), value=1.0) for x in lines], dim=-2)


def _whole(path: Path, write: Callable[[Path], None]) -> None:
    """Let a picture appear in one move."""
    part = path.with_name(f"{path.stem}.part{path.suffix}")
    write(part)
    os.replace(part, path)
