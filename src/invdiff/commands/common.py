"""Options that several commands share, as dataclasses."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from invdiff.core import InvdiffError, printable
from invdiff.core.limits import in_words
from invdiff.core.option import check_ranges, option
from invdiff.core.schedules import LEVEL_BYTES
from invdiff.core.signals import interrupts
from invdiff.priors.precision import AskedPrecision

MOST = 100_000
"""Steps of a solver."""
BOOLEANS: dict[str, Any] = {"true": True, "false": False}


@dataclass(frozen=True, kw_only=True)
class PriorOptions:
    """Which model of clean images, and what it may have to be told."""

    prior: str | None = option(
        "a name of `invdiff priors`, a file of weights, a folder with a diffusers model, or its "
        "hf:OWNER/NAME on the Hugging Face hub; without it the task's",
        None,
    )
    label: int | None = option("class from 0, of a class-conditional prior", None)
    prompt: str | None = option("what the picture shows, for a prior that reads text", None)
    guidance: float | None = option(
        "of classifier-free guidance; 1 is the prior given --label or --prompt", None
    )
    prior_options: str | None = option(
        "what the weights leave open, as NAME=VALUE,...; see `invdiff priors`", None
    )
    compile: bool = option(
        "let torch compile the network, which takes minutes for each shape", False
    )
    no_check: bool = option("take a prior even if it fails to denoise a small picture", False)

    def told(self) -> dict[str, Any]:
        """label, prompt, guidance, compile and --prior-options, as load_prior takes them."""
        named = {"label": self.label, "prompt": self.prompt, "guidance": self.guidance}
        found: dict[str, Any] = {k: v for k, v in named.items() if v is not None}
        if self.compile:
            found["compile"] = True
        for part in filter(None, (self.prior_options or "").split(",")):
            name, equals, value = part.partition("=")
            if not equals or not value:
                raise InvdiffError(f"--prior-options takes NAME=VALUE,..., found {part!r}.")
            found[name.strip()] = BOOLEANS.get(value.strip(), _number(value))
        return found


def _number(text: str) -> Any:
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a restoration is run."""

    want: Literal["estimate", "samples", "both"] = option(
        "estimate, samples (which show what is uncertain), or both",
        "both",
    )
    samples: int = option("how many samples to draw", 4)
    solver: str = option("auto, or one of `invdiff solvers`; --help tells its knobs", "auto")
    steps: int | None = option("from noise to image; the solver's own number without it", None)
    seed: int = option("of all samples", 0)
    batch: int | None = option("samples that are restored together", None)
    precision: AskedPrecision = option("of the network", "auto")
    device: str = option("auto, cpu, cuda, mps; cuda:0,1 splits samples over both", "auto")
    out: Path | None = option("folder for the results; restored-NAME of the file without it", None)
    overwrite: bool = option("replace the results of an earlier run", False)
    resume: bool = option("go on from the checkpoint of this command", False)
    checkpoint_every: float = option(
        "seconds between checkpoints, for --resume; 0: when interrupted alone",
        60.0,
        min=0,
    )
    checkpoint_steps: int | None = option("steps after which one is written too", None, min=1)
    quiet: bool = option("no progress bar", False)

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.steps is not None and self.steps > MOST:
            size = in_words(self.steps * LEVEL_BYTES)
            raise InvdiffError(
                f"--steps is at most {MOST}, found {self.steps}, whose levels alone would take "
                f"{size} of memory."
            )


@dataclass(frozen=True, kw_only=True)
class FileOptions:
    """Where options come from."""

    config: Path | None = option("YAML file with any of these options, and task and file", None)
    print_config: bool = option("print all of them as such a file, and do nothing", False)


def say(lines: Any) -> None:
    """Print (label, text) lines, aligned."""
    for label, text in lines:
        print(printable(f"{label:<9}{text}"), flush=True)


def tell(text: str) -> None:
    """Print a line on stderr, if there is anybody to read it."""
    with contextlib.suppress(OSError, ValueError):
        if sys.stderr is not None:
            print(printable(text), file=sys.stderr, flush=True)


@contextlib.contextmanager
def terminations_as_interrupts() -> Iterator[None]:
    """SIGTERM and SIGHUP raise KeyboardInterrupt, as SIGINT does, once (`core.signals`)."""
    with interrupts():
        yield
