"""`invdiff bench`: solvers beside each other on a folder of images."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invdiff import fields
from invdiff.cli import OK
from invdiff.commands.common import say, tell, terminations_as_interrupts
from invdiff.commands.parser import Parser, wants_help
from invdiff.core import InvdiffError, nearest
from invdiff.core.option import check_ranges, option
from invdiff.core.signals import as_interrupt

if TYPE_CHECKING:
    from invdiff.audit.lines import Lines
    from invdiff.bench.grid import Grid

ABOUT = """Measure solvers beside each other on the images of a folder: PSNR and SSIM of single
samples and of their mean, misfit, coverage, cost, each with its confidence interval. The folder of
results holds bench.jsonl, which grows line by line, and bench.md with the tables."""
SUITE_NAMES = "small, dps, daps, diffpir, ddrm, medical-ct, medical-mri"
MORE = """  invdiff bench photos --solvers auto,estimate,ddrm --side 128 --out my-bench
  invdiff bench photos --suite dps --solvers dps,dps@super-resolution,auto --prior ffhq.pt
  invdiff bench slices --suite medical-ct --prior ct --solvers auto,score-medical@ct-lidc
  invdiff bench photos --suite small --solvers auto --resume       goes on where it was stopped
  invdiff bench photos --solvers ddrm,deepinv:ddrm,azula:mmps      beside other libraries
  invdiff bench photos --lpips vgg16.pt --fid inception-2015-12-05.pt
  invdiff bench --out my-bench --page         writes the tables again, of a bench under way too

A solver has the preset of `restore --solver NAME`; NAME@TASK has the settings of its authors' code,
auto and estimate are what `restore` takes. LIBRARY:METHOD is a sampler of another library, which
has to be there, in its own settings: azula:dps, diffpir, mmps, pgdm, tds, tmpd; deepinv:ddrm,
diffpir, dps, mmps, pigdm. No weights for --lpips and --fid come with invdiff. A suite has the
operators and the noise of a published comparison (docs/bench.md); it fails on no solver: one that
cannot is told below its table."""


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """What is measured, and where it goes."""

    suite: str = option(f"measurements: {SUITE_NAMES}", "small")
    solvers: str = option(
        "names with commas between; auto, estimate, NAME@TASK, LIBRARY:METHOD", "auto,estimate"
    )
    prior: str | None = option("with commas between; photo, ct, brain-magnitude by the suite", None)
    side: int = option("of the middle that is cut out of every image, in pixels", 256, min=32)
    images: int = option("the first so many of the folder", 12, min=1)
    kernels: Path | None = option("kernels of motion blur: a folder of files, or one", None)
    samples: int = option("of each measurement", 4, min=1, max=1000)
    steps: int = option("of a solver, at most", 1000, min=1)
    seed: int = option("of masks, noise and samples", 0, min=0)
    lpips: Path | None = option(
        "TorchScript file for LPIPS, as vgg16.pt of StyleGAN's metrics", None
    )
    fid: Path | None = option("the same for FID, as inception-2015-12-05.pt", None)
    out: Path = option("folder for the results", Path("bench"))
    resume: bool = option("go on with the bench in the folder", False)
    page: bool = option("write the tables of what is there, and measure nothing", False)
    quiet: bool = option("no progress", False)

    def __post_init__(self) -> None:
        check_ranges(self)


def run(name: str, args: list[str]) -> int:
    """Measure, or go on measuring; the exit code."""
    to = Parser(name, "IMAGES [options]", ABOUT)
    to.add(BenchOptions, "options")
    if wants_help(args):
        print(f"{to.format_help().rstrip()}\n\n{MORE}")
        return OK
    given = to.read(args)
    how = fields.build(BenchOptions, to.of(BenchOptions, given), name)
    if given.knobs:
        raise InvdiffError("`invdiff bench` measures solvers by their names, and no knobs.")
    if how.page:
        return _page(how)
    if len(given.words) != 1:
        raise InvdiffError("`invdiff bench` takes one folder of images, or one image.")
    with terminations_as_interrupts():
        return _measure(Path(given.words[0]), how)


def _page(how: BenchOptions) -> int:
    """Write the page of what is there, and say so; the exit code."""
    from invdiff.bench import report

    written = report.write(how.out)
    say([("results", str(how.out)), *(("", file.name) for file in written)])
    return OK


def _measure(images: Path, how: BenchOptions) -> int:
    from invdiff.audit.lines import BENCH, Lines
    from invdiff.bench import kept, report

    cells, settings = _planned(images, how)
    if how.resume and (how.out / kept.FILE).exists():
        kept.read(how.out)
    lines = Lines(how.out, settings, how.resume, BENCH)
    try:
        _lines(cells, lines, how.quiet)
    except BaseException as error:
        if isinstance(as_interrupt(error), KeyboardInterrupt):
            report.write(how.out)
            items = {item for item, *_ in cells.names()}
            tell(
                f"invdiff: {len(items & lines.done)} of {len(items)} runs are done, and "
                f"{how.out / report.PAGE} tells of them; --resume goes on."
            )
        raise
    return _page(how)


def _lines(cells: Grid, lines: Lines, quiet: bool) -> None:
    """Measure what is left, telling what fails."""
    from tqdm import tqdm

    failed = set[tuple[str, str]]()
    waiting = sum(item not in lines.done for item, *_ in cells.names())
    each = cells.lines(lines.done)
    for line in tqdm(each, total=waiting, unit="run", disable=quiet, file=sys.stderr):
        lines.add(line)
        if "error" in line and (line["solver"], line["error"]) not in failed:
            failed.add((line["solver"], line["error"]))
            tell(f"invdiff: {line['item']}: {line['error']}")


def _planned(images: Path, how: BenchOptions) -> tuple[Grid, dict[str, Any]]:
    """What is measured, and what a bench that goes on has to have in common with it."""
    from invdiff import __version__
    from invdiff.bench import grid
    from invdiff.bench.frames import Framing, pictures
    from invdiff.bench.kept import FORMAT
    from invdiff.bench.kernels import kernel_files
    from invdiff.bench.perceptual import load
    from invdiff.bench.suites import SUITES, with_kernels

    if how.suite not in SUITES:
        raise nearest(how.suite, SUITES, "suite")
    suite, solvers = SUITES[how.suite], _words(how.solvers)
    priors = _words(suite.prior if how.prior is None else how.prior)
    grid.check_names(solvers)
    frame = Framing(suite.channels[0], suite.scans)
    found, unfit = pictures(images, how.images, how.side, frame)
    for text in unfit:
        tell(f"invdiff: left out: {text}")
    settings: dict[str, Any] = {
        "invdiff": __version__, "format": FORMAT, "suite": how.suite,
        "images": [p.name for p in found], "side": how.side, "samples": how.samples,
        "seed": how.seed, "steps": how.steps,
    }  # fmt: skip
    if how.kernels is not None:
        files = kernel_files(how.kernels, how.side)
        suite = with_kernels(suite, files)
        settings["kernels"] = {p.name: sha256(p.read_bytes()).hexdigest()[:16] for p in files}
    paths = {"lpips": how.lpips, "fid": how.fid}
    networks = {k: load(k, path, how.side) for k, path in paths.items() if path is not None}
    settings |= {k: network.fingerprint for k, network in networks.items()}
    cells = grid.Grid(
        found, suite, solvers, priors, how.side, how.samples, how.seed, how.steps,
        lpips=networks.get("lpips"), fid=networks.get("fid"), out=how.out,
    )  # fmt: skip
    settings["priors"] = {prior: cells.prior(prior).fingerprint for prior in priors}
    return cells, settings


def _words(text: str) -> tuple[str, ...]:
    """Words between commas, each once. Raises InvdiffError where there is none."""
    found = tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    if not found:
        raise InvdiffError("An option that lists names needs one at least.")
    return found
