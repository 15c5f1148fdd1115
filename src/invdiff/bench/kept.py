"""bench.jsonl: the lines of a bench, and what each of them must hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from invdiff.audit import lines
from invdiff.bench.suites import SUITES
from invdiff.core import InvdiffError

FORMAT = 2
"""Of bench.jsonl; before it, coverage counted all pixels."""
FILE = f"{lines.BENCH}.jsonl"
NUMBERS = ("psnr", "psnr_mean", "ssim", "ssim_mean", "misfit", "residual", "coverage", "counted")
"""Values of every measurement; None where there is none."""
PERCEIVED = ("lpips", "lpips_mean")
"""Values of those with weights for LPIPS."""


def read(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """How a bench was measured, and its lines. A last line that was cut off is left out.

    Raises InvdiffError where there is none, and for a line that is damaged.
    """
    how, found = lines.read(folder / FILE)
    if not _heads(how):
        raise InvdiffError(
            f"The first line of {folder / FILE} is damaged, or of another version of invdiff; "
            "measure again with another --out."
        )
    wanted = NUMBERS + PERCEIVED * ("lpips" in how)
    for number, line in enumerate(found, 2):
        if not _whole(line, wanted):
            raise InvdiffError(
                f"Line {number} of {folder / FILE} is damaged: it holds neither all values nor an "
                "error; remove the line, and --resume measures it again."
            )
    return how, found


def _heads(how: Any) -> bool:
    """Whether what a bench says of itself is what the page needs."""
    return (
        isinstance(how, dict)
        and how.get("format") == FORMAT
        and how.get("suite") in SUITES
        and isinstance(how.get("images"), list)
        and all(isinstance(how.get(key), int) for key in ("side", "samples", "seed", "steps"))
    )


def _whole(line: dict[str, Any], wanted: tuple[str, ...]) -> bool:
    """Whether a line holds an error, or all values of a measurement."""
    if not all(isinstance(line.get(k), str) for k in ("item", "case", "prior", "solver")):
        return False
    if "error" in line:
        return isinstance(line["error"], str)
    values = line.get("values")
    return (
        isinstance(values, dict)
        and all(key in values for key in wanted)
        and all(v is None or _number(v) for v in values.values())
        and _number(values["counted"])
        and all(_number(line.get(key)) for key in ("steps", "evaluations", "seconds"))
        and all(isinstance(line.get(key, ""), str) for key in ("features", "library"))
    )


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
