"""A restoration that is done: its images in the units of the file, and what is known of them."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from invdiff import measured
from invdiff.core import InvdiffError
from invdiff.core.encode import decode
from invdiff.core.folders import write_folder
from invdiff.files.figures import overview, uncertainty_picture
from invdiff.problem import Problem
from invdiff.sampling import record
from invdiff.sampling.result import Result
from invdiff.tasks.base import View

MARKER = "run.json"
ESTIMATE, SAMPLE = "estimate: the best single picture", "sample {}: one that may be true"
"""What the pictures of the overview are."""


@dataclass(frozen=True, eq=False)
class Restoration:
    """Estimate and samples of one file, as arrays in the units and the layout of the file.

    Pictures are (H, W) or (H, W, 3) on [0, 1]; MR images complex (H, W) in the units of the
    k-space; CT slices (H, W) in Hounsfield units or attenuation, (slices, H, W) of a stack.
    result: the same in the units of the prior, with all that repeats the run. view: how images are
    shown.
    """

    result: Result
    view: View

    @property
    def estimate(self) -> np.ndarray:
        """The best single picture, (H, W[, C]).

        By a deterministic method where the task has one, else what stands for all samples: their
        mean. Raises InvdiffError when samples alone were asked for.
        """
        if self.result.estimate is not None:
            return self._array(self.view.values(stacked(self.result.estimate[:, None])))[0]
        if self.want == "samples":
            raise InvdiffError("Samples alone were asked for; the estimate takes want both.")
        return self._array(self._stands()[None])[0]

    @property
    def samples(self) -> np.ndarray:
        """Images that may be true, (K, H, W[, C]); of weighted ones, as many of equal weight."""
        return self._array(self._values())

    @property
    def mean(self) -> np.ndarray:
        """What stands for the samples, (H, W[, C]): their mean, but of phase retrieval the best."""
        return self._array(self._stands()[None])[0]

    @property
    def std(self) -> np.ndarray:
        """The uncertainty: deviation of the samples, (H, W[, C]). Raises InvdiffError for one."""
        if not self.spread:
            raise InvdiffError("One sample has no deviation; draw two or more.")
        return self.view.deviation(self.view.std(self._values()))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What seems wrong with the answer, each a sentence; see `Result.check`."""
        return tuple(self.result.config["warnings"])

    @property
    def agreement(self) -> str:
        """How far the answers are from the measurement, in words; "" where no noise is known."""
        checks, said = self.result.config.get("checks", {}), []
        for name, check in sorted(checks.items()):
            if check["misfit"] is not None and (name != "samples" or self.want != "estimate"):
                low, high = (f"{m:.2f}" for m in (min(check["misfit"]), max(check["misfit"])))
                said.append(f"{name} {low}" + (f" to {high}" if high != low else ""))
        unit = "half steps from their cells" if self.problem.A.cells else "times its noise"
        return f"{', '.join(said)} {unit} from the measurement" if said else ""

    @property
    def unsolved(self) -> str:
        """Data steps that reached their bound of iterations, in words; "" where there are none."""
        found = self.result.config.get("unsolved")
        if found is None:
            return ""
        steps = f"{found['systems']} data step{'s' * (found['systems'] > 1)}"
        return (
            f"{steps} ended after {found['iterations']} iterations, with a residual of "
            f"{found['residual']:.2g} times the right side"
        )

    @property
    def cost(self) -> dict[str, float]:
        """Seconds, and evaluations of the prior for the estimate and for each sample."""
        drawn = self.result.nfe if self.drawn else 0
        alone = 0 if self.drawn else self.result.nfe
        return {
            "seconds": self.result.seconds,
            "evaluations of the estimate": self.result.config.get("estimate_nfe", alone),
            "evaluations of a sample": drawn,
            "gradients of a sample": self.result.vjps,
        }

    @property
    def task(self) -> str:
        """Name of the task."""
        return str(self.result.config["task"]["name"])

    @property
    def want(self) -> str:
        """What was asked for: estimate, samples or both."""
        return str(self.result.config["want"])

    @property
    def drawn(self) -> bool:
        """Whether there are samples: also where nothing but their mean is an estimate."""
        return self.want != "estimate" or self.result.estimate is None

    @property
    def spread(self) -> bool:
        """Whether there is an uncertainty."""
        more = self.drawn and self.result.samples.shape[1] > 1
        return more and self.view.spread and self.want != "estimate"

    @property
    def solvers(self) -> list[str]:
        """Names of what made it: the estimator, and the sampler."""
        estimator = self.result.estimator() if self.result.estimate is not None else None
        made = [estimator.name] if estimator else []
        made += [self.result.solver().name] if self.drawn else []
        return list(dict.fromkeys(made))

    @cached_property
    def problem(self) -> Problem:
        """The problem that was solved."""
        return self.result.problem()

    @property
    def files(self) -> list[str]:
        """What `save` puts into a folder for people, in words."""
        found = ["overview.png"] + ([] if self.want == "samples" else ["estimate.png"])
        if self.want != "estimate":
            count = self.result.samples.shape[1]
            found.append(f"{self.view.stands}.png")
            found += ["uncertainty.png"] if self.spread else []
            found.append("sample-1.png" + (f" to sample-{count}.png" if count > 1 else ""))
        return found

    def figure(self) -> Any:
        """Everything on one sheet, a PIL image: measurement, estimate, samples, uncertainty."""
        from PIL import Image

        with tempfile.TemporaryDirectory() as folder:
            _sheet(self, Path(folder) / "overview.png")
            with Image.open(Path(folder) / "overview.png") as image:
                return image.copy()

    def save(self, folder: str | Path, overwrite: bool = False) -> Path:
        """Write pictures, figures and the run into a folder, which appears when it is complete.

        `invdiff restore --from FOLDER` makes the same images again, `load` reads them.
        Where it is: FOLDER-2 and so on if another appeared meanwhile. Raises InvdiffError when the
        folder exists and overwrite is False, or holds files that no run wrote.
        """
        return write_folder(Path(folder), lambda part: _write(self, part), overwrite, MARKER)

    @staticmethod
    def load(folder: str | Path) -> Restoration:
        """A restoration from the folder that `save`, or the command line, wrote.

        Raises InvdiffError when it holds none.
        """
        result = Result.load(folder)
        missing = [key for key in record.OF_RESTORATIONS if key not in result.config]
        if missing:
            raise InvdiffError(f"{folder} is not the folder of a restoration: no {missing[0]}.")
        view = decode(result.config["view"], result.tensors)
        if not isinstance(view, View):
            raise InvdiffError(f"{folder} is not the folder of a restoration: view is no view.")
        config = {"warnings": [], "want": "samples"} | result.config
        return Restoration(replace(result, config=config), view)

    def _values(self) -> Tensor:
        if not self.drawn:
            raise InvdiffError("The estimate alone was asked for; samples take want both.")
        return self.view.values(stacked(self.result.resampled()))

    def _stands(self) -> Tensor:
        return self.view.summary(self._values(), stacked(self.result.resampled()), self.problem)[1]

    def _array(self, values: Tensor) -> np.ndarray:
        """(K, C, H, W) as numpy, channels last; a single channel has no axis."""
        return self.view.array(values)

    def _repr_png_(self) -> bytes:
        """The sheet, in a notebook."""
        import io

        file = io.BytesIO()
        self.figure().save(file, "PNG")
        return file.getvalue()

    def __repr__(self) -> str:
        size = "x".join(map(str, self.view.size(tuple(self.result.samples.shape[2:]))))
        count = self.result.samples.shape[1] if self.drawn else 0
        said = f", {len(self.warnings)} warnings" if self.warnings else ""
        made = " and ".join(self.solvers)
        return f"Restoration({self.task}, {size}, {count} samples, by {made}{said})"


def stacked(x: Tensor) -> Tensor:
    """(measurements, samples, C, H, W) as (samples, measurements C, H, W): slices of a stack."""
    return x.transpose(0, 1).flatten(1, 2)


def _write(done: Restoration, folder: Path) -> None:
    """Write estimate, sample-K, mean, uncertainty.png, overview.png, run.json, run.safetensors.

    How samples are written, and whether a mean stands for them, is up to the view. Without a second
    sample there is no uncertainty. Of weighted samples the pictures are resampled ones;
    run.safetensors, which is written first, holds all.
    """
    done.result.write(folder)
    write_images(done, folder)
    if done.spread:
        std, path = done.view.std(done._values()), folder / "uncertainty.png"
        count = done.result.resampled().shape[1]
        uncertainty_picture(done.view.shown(std), count, path, done.view.scale)
    _sheet(done, folder / "overview.png")
    record.add_files(folder)


def write_images(done: Restoration, folder: Path) -> None:
    """Write estimate, sample-K and what stands for the samples, as the view writes an image."""
    view = done.view
    if done.result.estimate is not None:
        view.save(folder, "estimate", view.values(stacked(done.result.estimate[:, None]))[0])
    if done.drawn:
        values = view.values(stacked(done.result.resampled()))
        title, stands = view.summary(values, stacked(done.result.resampled()), done.problem)
        if done.result.estimate is None and done.want != "samples":
            view.save(folder, "estimate", stands)
        if done.want != "estimate":
            for i, sample in enumerate(values, 1):
                view.save(folder, f"sample-{i}", sample)
            view.save(folder, view.stands, stands)


def _sheet(done: Restoration, path: Path) -> None:
    """Everything on one sheet, with what was measured of such samples and what is wrong."""
    view, panels, std = done.view, done.view.measurement(done.problem), None
    if done.result.estimate is not None:
        best = view.values(stacked(done.result.estimate[:, None]))[0]
        panels.append((ESTIMATE, view.picture(best)))
    if done.drawn:
        values = view.values(stacked(done.result.resampled()))
        title, stands = view.summary(values, stacked(done.result.resampled()), done.problem)
        picture = view.picture(stands)
        if done.want == "estimate":
            panels.append((f"estimate: {title}", picture))
        else:
            shown = 3 if done.result.estimate is not None else 4
            panels += [(title, picture)] if len(values) > 1 else []
            panels += [(SAMPLE.format(i), view.picture(v)) for i, v in enumerate(values[:shown], 1)]
            std = view.shown(view.std(values)) if done.spread else None
    lines = [f"{done.task}: {' and '.join(done.solvers)}"]
    coverage = measured.words(done.task, done.result.config["prior_spec"], done.result.solver())
    lines += [coverage] if coverage and std is not None else []
    lines += [f"warning: {text}" for text in done.warnings]
    overview(panels, std, path, "\n".join(lines), view.scale)
