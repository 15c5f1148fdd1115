"""run.json and run.safetensors: how a run is written, and how a file is refused that is none.

docs/runs.md tells what the fields are. Format 3 has a checksum of every field and of every
tensor; files of before have no number, and are held to the same fields.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from invdiff.core import InvdiffError, checksum
from invdiff.core.encode import UnknownClassError
from invdiff.core.folders import listing
from invdiff.core.forms import check_form, shown
from invdiff.problem import Problem
from invdiff.sampling.solver import Solver

FORMAT = 3
"""The number of the format that is written."""
JSON_FILE, TENSOR_FILE = "run.json", "run.safetensors"
LARGEST = 64 * 2**20
"""Bytes of a run.json that are read; those that were written have some thousands."""
MOST = 10_000_000
"""Samples of one measurement, or rows of a batch, in a file."""
STEPS = 1_000_000
"""Steps, iterations, entries of a table and such that a solver of a file may have."""

Scalar = bool | int | float | str | None
FORMS: dict[str, type] = {
    "problem": Problem, "solver": Solver, "estimator": Solver, "view": object, "task": object,
}  # fmt: skip
"""Fields that are dataclasses, and of which base."""
FIELDS: dict[str, Any] = {
    "format": int, "invdiff": str, "torch": str,
    "prior": {"name": str, "fingerprint": str, "spectrum": str},
    "seed": int, "samples": int, "batch": int, "portable": bool, "device": str,
    "want": Literal["estimate", "samples", "both"], "estimate_nfe": int, "estimate_seconds": float,
    "photo": {"name": str, "warnings": tuple[str, ...]},
    "plugins": Mapping[str, str], "noise": str, "prior_spec": str,
    "prior_options": Mapping[str, Scalar], "prior_presumed": tuple[str, ...],
    "precision": Literal["float32", "blocks", "mixed", "bfloat16"],
    "checks": Mapping[str, dict[str, Any]], "warnings": tuple[str, ...],
    "nfe": int, "vjps": int, "seconds": float,
    "unsolved": {"systems": int, "iterations": int, "residual": float},
    "files": tuple[str, ...], "tensors": Mapping[str, str], "checksums": Mapping[str, str],
}  # fmt: skip
"""Fields with plain values, and what they hold."""
NEEDED = (
    "invdiff", "problem", "prior", "solver", "seed", "samples", "batch", "portable", "device",
    "nfe", "vjps", "seconds",
)  # fmt: skip
OF_RESTORATIONS = ("photo", "task", "view", "prior_spec", "precision")
"""Fields that `invdiff restore` adds, and needs."""
NEW = ("format", "files", "tensors", "checksums")
"""Fields of format 3, which describe the files and not the run."""
COUNTS = {"samples": (1, MOST), "batch": (1, MOST), "nfe": (0, 2**62), "vjps": (0, 2**62)}


def write(
    folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor], files: Collection[str]
) -> None:
    """Write run.safetensors and run.json. files: names of all that the folder will hold."""
    write_tensors(folder / TENSOR_FILE, tensors)
    record = {"format": FORMAT, **config, "files": sorted({JSON_FILE, TENSOR_FILE, *files})}
    record["tensors"] = checksum.of_tensors(tensors)
    _write(folder, record)


def add_files(folder: Path) -> None:
    """Tell in the run.json of a folder, before others see it, which files lie there."""
    record = json.loads((folder / JSON_FILE).read_text(encoding="utf-8"))
    record["files"] = listing(folder)
    del record["checksums"]
    _write(folder, record)


def _write(folder: Path, record: dict[str, Any]) -> None:
    sums = {"checksums": {key: checksum.of_json(value)[:16] for key, value in record.items()}}
    text = json.dumps(record | sums, indent=1) + "\n"
    (folder / JSON_FILE).write_text(text, encoding="utf-8")


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a file of tensors, with the mode that the umask allows; safetensors has its own.

    Tensors that share memory are written each.
    """
    seen, apart = set[int](), dict[str, Tensor]()
    for name, tensor in tensors.items():
        at = tensor.untyped_storage().data_ptr()
        apart[name] = tensor.clone() if at in seen else tensor.contiguous()
        seen.add(at)
    path.touch()
    mode = path.stat().st_mode
    try:
        save_file(apart, path)
    except SafetensorError as error:
        raise OSError(str(error).removeprefix("Error while serializing: ")) from error
    path.chmod(mode)


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Fields and tensors of a run. Raises InvdiffError, naming the field that is none.

    All of both files is looked at before this returns; fields of `NEW` are left out. Classes of
    plugins that are not here are looked at no further.
    """
    record = _json(folder)
    try:
        tensors = load_file(folder / TENSOR_FILE)
    except (OSError, ValueError, SafetensorError):
        raise _no_run(folder) from None
    path = folder / JSON_FILE
    try:
        check(record, tensors)
    except InvdiffError as error:
        raise InvdiffError(f"{path} is not a run as it was written: {error}") from error
    return {key: value for key, value in record.items() if key not in NEW}, tensors


def _no_run(folder: Path) -> InvdiffError:
    return InvdiffError(f"{folder} holds no saved run (a complete {JSON_FILE} and {TENSOR_FILE}).")


def _json(folder: Path) -> dict[str, Any]:
    path = folder / JSON_FILE
    try:
        if not path.is_file() or path.stat().st_size > LARGEST:
            raise _no_run(folder)
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # numbers of 5000 digits too
        raise _no_run(folder) from None
    if not isinstance(found, dict) or not found:
        raise _no_run(folder)
    return found


def check(record: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Raise InvdiffError, naming the field, unless these are the fields and tensors of a run."""
    if "format" not in record and any(key in record for key in NEW):
        raise InvdiffError("format is missing.")
    number = record.get("format", 2)
    check_form(number, int, "format", ())
    if not (number == FORMAT or (number == 2 and "format" not in record)):
        when = "a later" if number > FORMAT else "no"
        raise InvdiffError(
            f"format is {number}, of {when} version of invdiff; this one writes {FORMAT}."
        )
    needed = (*NEEDED, *(NEW if number == FORMAT else ()))
    missing = next((key for key in needed if key not in record), None)
    if missing is not None:
        raise InvdiffError(f"{missing} is missing.")
    extra = set(record) - set(FIELDS) - set(FORMS)
    if number != FORMAT and extra:
        raise InvdiffError(f"{sorted(extra)[0]} is no field of a run.")
    for key, hint in FIELDS.items():
        if key in record:
            _check_plain(record[key], hint, key)
    for key, (low, high) in COUNTS.items():
        if not low <= record[key] <= high:
            raise InvdiffError(f"{key} must be from {low} to {high}, found {record[key]}.")
    for key in FORMS:
        _check_class(record, key, tensors)
    if number == FORMAT:
        _check_sums(record, tensors)
    shape = tuple(tensors["samples"].shape) if "samples" in tensors else None
    if shape is None or len(shape) < 3 or shape[1] != record["samples"]:
        raise InvdiffError(
            f"samples is {record['samples']}, but {TENSOR_FILE} holds samples of shape {shape}."
        )


def _check_plain(value: Any, hint: Any, where: str) -> None:
    """JSON values that are no forms: text, numbers, lists and mappings of such."""
    if isinstance(hint, dict):
        if not isinstance(value, dict):
            raise InvdiffError(f"{where} must be a mapping, found {shown(value)}.")
        for key, part in value.items():
            if key not in hint:
                raise InvdiffError(f"{where}.{key} is no field of a run.")
            _check_plain(part, hint[key], f"{where}.{key}")
        if next(iter(hint)) not in value:
            raise InvdiffError(f"{where}.{next(iter(hint))} is missing.")
    elif getattr(hint, "__origin__", None) is Mapping or hint == dict[str, Any]:
        if not isinstance(value, dict):
            raise InvdiffError(f"{where} must be a mapping, found {shown(value)}.")
        inner = hint.__args__[1] if hint != dict[str, Any] else Any
        for key, part in value.items():
            _check_plain(part, inner, f"{where}.{key}")
    elif hint is not Any:
        check_form(value, hint, where, ())


def _check_class(record: Mapping[str, Any], key: str, tensors: Mapping[str, Tensor]) -> None:
    """One of FORMS. What could not be written is a repr; old tasks are names with options."""
    form = record.get(key)
    if form is None and key not in record:
        return
    if isinstance(form, dict) and set(form) == {"repr"}:
        return
    if key == "task":
        if not isinstance(form, dict) or not isinstance(form.get("name"), str):
            raise InvdiffError(f"task must be a mapping with a name, found {shown(form)}.")
        form = {k: v for k, v in form.items() if k != "name"}
        if set(form) == {"options"} or not form:  # of before tasks were classes
            return
    with contextlib.suppress(UnknownClassError):  # of a plugin: told when it is made
        check_form(form, FORMS[key], key, tensors, nan=key == "task")
    if key in ("solver", "estimator"):
        _check_bounds(form, key)


def _check_bounds(form: Any, where: str) -> None:
    """A solver of a file has no schedule that would fill the memory."""
    if isinstance(form, dict):
        for key, part in form.get("fields", form).items():
            _check_bounds(part, f"{where}.{key}")
    elif isinstance(form, list):
        for part in form:
            _check_bounds(part, where)
    elif isinstance(form, int) and abs(form) > STEPS:
        raise InvdiffError(f"{where} is {form}, more than {STEPS}.")


def _check_sums(record: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Every field and every tensor is as it was written."""
    sums = record["checksums"]
    for key in sorted({*record, *sums} - {"checksums"}):
        if key not in sums:
            raise InvdiffError(f"{key} was added after the run was written; repeat the run.")
        if key not in record or checksum.of_json(record[key])[:16] != sums[key]:
            raise InvdiffError(f"{key} was changed after the run was written; repeat the run.")
    if set(tensors) != set(record["tensors"]):
        names = ", ".join(sorted(set(tensors) ^ set(record["tensors"])))
        raise InvdiffError(f"{TENSOR_FILE} does not belong to it (tensors {names[:100]}).")
    for name, told in record["tensors"].items():
        if checksum.of_tensor(tensors[name]) != told:
            raise InvdiffError(f"the tensor {name} was changed after the run was written.")
