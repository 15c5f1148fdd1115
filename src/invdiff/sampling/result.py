"""What a run gives: samples, and all that is needed to make them again."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from invdiff import __version__
from invdiff.core import InvdiffError, shown
from invdiff.core.encode import decode, encode
from invdiff.core.folders import whole_folder
from invdiff.core.rng import Rng
from invdiff.priors.base import Prior
from invdiff.problem import Problem
from invdiff.sampling import importance
from invdiff.sampling.checks import Check, check
from invdiff.sampling.pose import Posed
from invdiff.sampling.solver import Solver


@dataclass(frozen=True)
class Result:
    """Samples of a run and all that is needed to make them again.

    samples: (measurements, samples, *x_shape), in the prior's range, on the CPU.
    nfe: evaluations of the prior per image; vjps: vector-Jacobian products per image.
    seconds: wall-clock time. config: problem, prior, solver, seeds and versions, as JSON values;
    "unsolved" where data steps reached their bound of iterations: how many, and what was left.
    tensors: the tensors that config refers to. latents: of a prior of latents, what the samples
    were decoded from, (measurements, samples, *z_shape); None for a prior of images.
    log_weight: of every sample, (measurements, samples), of a solver that weighs them; else None.
    Mean and standard deviation are then weighted; the samples are not, until `resampled`.
    estimate: one best picture of each measurement, (measurements, *x_shape), by a deterministic
    method, where one was asked for (`solve(estimator=...)`); else None. It is not the mean.
    """

    samples: Tensor
    nfe: int
    vjps: int
    seconds: float
    config: dict[str, Any]
    tensors: dict[str, Tensor] = field(default_factory=dict, repr=False)
    latents: Tensor | None = None
    log_weight: Tensor | None = None
    estimate: Tensor | None = None

    def __repr__(self) -> str:
        """Shapes and names: one line or two."""
        solver = str(self.config.get("solver", {}).get("type", "")).rpartition(":")[2]
        prior, seed = self.config.get("prior", {}).get("name", ""), self.config.get("seed")
        found = {"samples": self.samples, "estimate": self.estimate, "latents": self.latents}
        told = [f"{name}={shown(t)}" for name, t in found.items() if t is not None]
        told += [f"nfe={self.nfe}", f"vjps={self.vjps}", f"seconds={self.seconds:.3g}"]
        return f"Result({', '.join(told)}, solver={solver}, prior={prior}, seed={seed})"

    @property
    def mean(self) -> Tensor:
        """Mean of the samples, (measurements, *x_shape).

        Of infinitely many exact samples it is the estimate of least squared error; of n it has
        1 + 1/n times that error.
        """
        if self.log_weight is not None:
            return importance.moments(self.samples, self.log_weight)[0]
        return self.samples.mean(1)

    @property
    def std(self) -> Tensor:
        """Standard deviation over samples, (measurements, *x_shape); 0 for a single sample."""
        if self.samples.shape[1] == 1:
            return torch.zeros_like(self.mean)
        if self.log_weight is not None:
            return importance.moments(self.samples, self.log_weight)[1]
        return self.samples.std(1)

    @property
    def ess(self) -> Tensor | None:
        """Effective number of samples, 1 / sum W^2 of each measurement; None without weights."""
        return None if self.log_weight is None else importance.effective_size(self.log_weight)

    @property
    def log_evidence(self) -> Tensor | None:
        """An estimate of log p(y) of each measurement; None without weights.

        Of y as the solver sees it, with white noise; a density, so that it depends on y's units.
        """
        return None if self.log_weight is None else importance.log_evidence(self.log_weight)

    def resampled(self, seed: int = 0) -> Tensor:
        """As many samples of equal weight, (measurements, samples, *x_shape), some more than once.

        Systematic resampling, in random order: a part of them is a draw too. Without weights, the
        samples.
        """
        if self.log_weight is None:
            return self.samples
        rng, rows = Rng.of(seed), torch.arange(len(self.samples))
        shuffled = rng.uniform(self.log_weight[None], "order")[0].argsort(1)
        u = rng.uniform(self.log_weight[None, :, 0], "resample")[0]
        index = importance.systematic(self.log_weight, u).gather(1, shuffled)
        return self.samples[rows[:, None], index]

    def check(self, prior: Prior | None = None, posed: Posed | None = None) -> dict[str, Check]:
        """Does the answer agree with what was measured? By "samples" and "estimate" (`Check`).

        prior: tells the range of images; without it [-1, 1]. posed: the problem of the run; without
        it, it is read from `config`.
        """
        span = (-1.0, 1.0) if prior is None else prior.image_range
        problem, answers = posed.asked if posed else self.problem(), {"samples": self.samples}
        white = posed.white if posed else None
        if self.estimate is not None:
            answers["estimate"] = self.estimate[:, None]
        return {
            name: check(problem, x, span, name == "estimate", white)
            for name, x in answers.items()
            if x.shape[1]
        }

    def save(self, folder: str | Path, overwrite: bool = False) -> Path:
        """Write run.json and run.safetensors; the folder appears when both are complete.

        Raises InvdiffError when the folder exists and overwrite is False.
        """
        with whole_folder(Path(folder), overwrite, marker="run.json") as part:
            self.write(part)
        return Path(folder)

    def write(self, folder: Path) -> None:
        """Write run.json and run.safetensors into a folder that exists."""
        record = {**self.config, "nfe": self.nfe, "vjps": self.vjps, "seconds": self.seconds}
        tensors = {**self.tensors, "samples": self.samples.contiguous()}
        if self.latents is not None:
            tensors["latents"] = self.latents.contiguous()
        if self.log_weight is not None:
            tensors["log_weight"] = self.log_weight.contiguous()
        if self.estimate is not None:
            tensors["estimate"] = self.estimate.contiguous()
        save_file(tensors, folder / "run.safetensors")
        (folder / "run.json").write_text(json.dumps(record, indent=1) + "\n")

    @staticmethod
    def load(folder: str | Path) -> Result:
        """A result from the folder that save wrote. Raises InvdiffError when it holds none."""
        folder = Path(folder)
        try:
            config = json.loads((folder / "run.json").read_text())
            tensors = load_file(folder / "run.safetensors")
            samples, latents = tensors.pop("samples"), tensors.pop("latents", None)
            log_weight, estimate = (tensors.pop(k, None) for k in ("log_weight", "estimate"))
            nfe, vjps, seconds = (config.pop(k) for k in ("nfe", "vjps", "seconds"))
        except (OSError, ValueError, LookupError, AttributeError, SafetensorError):
            raise InvdiffError(
                f"{folder} holds no saved run (a complete run.json and run.safetensors)."
            ) from None
        return Result(samples, nfe, vjps, seconds, config, tensors, latents, log_weight, estimate)

    def problem(self) -> Problem:
        """The problem that was solved."""
        found: Problem = decode(self.config["problem"], self.tensors)
        return found

    def solver(self) -> Solver:
        """The solver that solved it."""
        found: Solver = decode(self.config["solver"], self.tensors)
        return found

    def estimator(self) -> Solver | None:
        """The solver that made the estimate."""
        found = self.config.get("estimator")
        return None if found is None else decode(found, self.tensors)

    def check_prior(self, prior: Prior) -> None:
        """Raise InvdiffError unless prior is the one that made this result."""
        known = self.config["prior"]["fingerprint"]
        if known != prior.fingerprint:
            raise InvdiffError(
                f"The run used the prior {self.config['prior']['name']} ({known}), but this one is "
                f"{prior.name} ({prior.fingerprint}); give the same weights."
            )
        spectrum = self.config["prior"].get("spectrum")
        if spectrum is not None and spectrum != _spectrum(prior):
            raise InvdiffError(
                f"The run used another error spectrum of {prior.name} ({spectrum}, this one is "
                f"{_spectrum(prior) or 'not measured'}); give the one that it was made with."
            )


def _spectrum(prior: Prior) -> str:
    """Hash of the prior's error spectrum; empty where there is none."""
    return "" if prior.spectrum is None else prior.spectrum.fingerprint


def describe(
    problem: Problem, prior: Prior, solver: Solver, tensors: dict[str, Tensor]
) -> dict[str, Any]:
    """What is solved with what, as JSON values; tensors are put into `tensors`.

    A part that cannot be written (an operator of the user's own) is recorded by its repr.
    """

    def form(value: Any, name: str) -> Any:
        try:
            return encode(value, tensors, name)
        except InvdiffError:
            return {"repr": repr(value)}

    return {
        "invdiff": __version__,
        "torch": torch.__version__,
        "problem": form(problem, "problem"),
        "prior": {
            "name": prior.name,
            "fingerprint": prior.fingerprint,
            "spectrum": _spectrum(prior),
        },
        "solver": form(solver, "solver"),
    }
