"""Measurements in the package, to try the page on."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path


@dataclass(frozen=True)
class Example:
    """A measurement, what is wrong with it, and what the task has to be told. files: options that
    are files."""

    title: str
    file: str
    task: str
    options: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)

    def copied(self, room: Path) -> tuple[Path, dict[str, str]]:
        """The measurement, and the files of options, in an empty folder."""
        folder = resources.files("invdiff.app") / "examples"
        for name in (self.file, *self.files.values()):
            with resources.as_file(folder / name) as source:
                shutil.copyfile(source, room / name)
        return room / self.file, {k: str(room / name) for k, name in self.files.items()}


EXAMPLES = (
    Example("A small photograph", "alpacas-small.png", "super-resolution", {"scale": "4"}),
    Example(
        "A scratched photograph", "alpacas-scratched.png", "inpaint",
        files={"mask": "scratches.png"},
    ),
    Example("A noisy photograph", "alpacas-noisy.png", "denoise", {"noise": "0.1"}),
    Example(
        "A blurred photograph", "alpacas-blurred.png", "deblur",
        {"kernel": "gaussian:2.0", "noise": "0.02"},
    ),
    Example("A photograph in a bad JPEG file", "alpacas.jpg", "jpeg"),
    Example(
        "A chest, by few X-ray projections", "chest.npz", "ct",
        {"angles": "0,180", "side": "128", "pixel": "2.8125", "water": "0.02"},
    ),
    Example("A head, by an eighth of its k-space", "brain.npz", "mri"),
)  # fmt: skip
"""All of them; their terms are in examples/README.md of the repository."""


def examples_of(tasks: list[str]) -> list[Example]:
    """Those of some tasks."""
    return [e for e in EXAMPLES if e.task in tasks]
