"""A file of weights, read without running anything in it and without believing what it claims."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.priors.published import archives, pickles
from invdiff.priors.published.score_sde import with_average

SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".pkl", ".bin")
WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Names under which trainers put weights. A name with "ema" in it, of an average, counts before
them; any other will do where there is but one."""
HEADER = 100_000_000
"""The longest header of a .safetensors file, as its format has it."""


@dataclass(frozen=True, eq=False)
class Content:
    """tensors by name; pickled: what an EDM pickle says of itself; metadata of a .safetensors."""

    tensors: dict[str, Tensor]
    pickled: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)


def check_file(path: Path) -> None:
    """InvdiffError unless path is a file that may hold weights."""
    if path.is_dir():
        raise InvdiffError(f"{path} is a folder; give the file of weights in it.")
    try:
        if not path.is_file():
            raise InvdiffError(f"There is no file {path}; give the path of a file of weights.")
        with path.open("rb") as file:
            start = file.read(512).lstrip().lower()
    except OSError as error:
        raise InvdiffError(f"{path} cannot be read ({error.strerror}).") from error
    if not start:
        raise InvdiffError(f"{path} is empty; fetch the file again.")
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise InvdiffError(f"{path} is a web page and no weights; fetch the file itself.")
    if start.startswith(b"version https://git-lfs"):
        raise InvdiffError(f"{path} only names its weights (Git LFS); fetch the file itself.")


def sha256(path: Path) -> str:
    """Hash of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read(path: Path) -> Content:
    """The weights of a file, by its content and not by its name.

    Raises InvdiffError, in one sentence, for whatever is no whole file of weights.
    """
    check_file(path)
    with path.open("rb") as file:
        start = file.read(9)
    try:
        if start[:4] == b"PK\x03\x04":
            _check_zip(path)
            return _unwrapped(_torch(path), path)
        if start[8:9] == b"{" and not start.startswith(b"\x80"):
            return _safetensors(path)
        if path.suffix == ".pkl":
            found = pickles.read_pickle(path.read_bytes(), str(path))
            tensors, plain = pickles.network(found, str(path))
            return Content(_sound(tensors, path), plain)
        return _unwrapped(_torch(path), path)
    except InvdiffError:
        raise
    except Exception as error:
        if asked := re.search(r"GLOBAL ([\w.]+)", str(error)):  # of torch's own unpickler
            raise InvdiffError(
                f"{path} asks for {asked[1]}, which is more than tensors, and no code of a file is "
                "run; load it with the program that wrote it and save model.state_dict() alone."
            ) from error
        raise InvdiffError(
            f"{path} is no whole file of weights ({type(error).__name__}); fetch it again, or "
            "save its tensors alone."
        ) from error


def safetensors_metadata(path: Path) -> dict[str, str]:
    """The metadata of a .safetensors file, whose header is checked against the file's length."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(size - 8, HEADER):
            raise InvdiffError(
                f"{path} claims a header of {length} bytes, which a .safetensors file of {size} "
                "bytes cannot have; fetch the file again."
            )
        try:
            header = json.loads(file.read(length))
            metadata = dict(header.get("__metadata__") or {})
        except (AttributeError, TypeError, ValueError, RecursionError) as error:
            raise InvdiffError(
                f"{path} has no header that can be read; it is no .safetensors file."
            ) from error
    return metadata


def _safetensors(path: Path) -> Content:
    from safetensors import safe_open

    metadata = safetensors_metadata(path)
    with safe_open(path, framework="pt") as file:  # checks that the tensors fill the file
        tensors = {key: file.get_tensor(key) for key in file.keys()}
    return _unwrapped(tensors, path, metadata)


def _torch(path: Path) -> Any:
    """What torch.load finds without running code; options and numbers beside the weights pass."""
    allowed = getattr(torch.serialization, "safe_globals", None)
    with allowed(_harmless()) if allowed else contextlib.nullcontext():
        return torch.load(path, map_location="cpu", weights_only=True)


def _harmless() -> list[Any]:
    """Plain bags and numbers that checkpoints keep: argparse.Namespace, and scalars of numpy."""
    scalar = np.float64(0).__reduce__()[0]
    kinds = {type(np.dtype(t)) for t in ("f4", "f8", "i4", "i8", "b1", "u1")}
    names = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    return [argparse.Namespace, np.dtype, *kinds, *names]


def _check_zip(path: Path) -> None:
    """torch stores its records as they are, so that they cannot be larger than their file."""
    records = archives.records(path, path.stat().st_size, str(path), programs=True)
    if any(map(archives.is_program, records)):
        raise InvdiffError(
            f"{path} is a TorchScript program, and no code of a file is run; load it in Python and "
            "wrap it (invdiff.Denoiser, from_eps_model), or save its state_dict() alone."
        )


def _unwrapped(found: Any, path: Path, metadata: dict[str, str] | None = None) -> Content:
    """The weights inside of a checkpoint: of the average, where there is one."""
    if isinstance(found, dict) and isinstance(found.get("ema"), dict):
        if "shadow_params" in found["ema"] and isinstance(found.get("model"), dict):
            found = with_average(found)
    if isinstance(found, list | tuple):  # DDIM: [model, optimizer, epoch, step, average]
        states = [s for s in found if isinstance(s, dict) and _is_state(s)]
        found = states[-1] if states else None
    found = _wrapped(_wrapped(found))
    if not isinstance(found, dict) or not _is_state(found):
        raise InvdiffError(f"{path} holds no tensors by name; give the weights of a network.")
    tensors = {str(k): v for k, v in found.items() if isinstance(v, Tensor)}
    return Content(_sound(tensors, path), metadata=metadata or {})


def _wrapped(found: Any) -> Any:
    """What a dictionary holds: an average, else one of WRAPPERS, else its only dictionary."""
    if not isinstance(found, dict):
        return found
    inner = {str(k): v for k, v in found.items() if isinstance(v, dict) and _holds(v)}
    inner = {k: v for k, v in inner.items() if "optim" not in k}
    averages = [k for k in inner if "ema" in k]
    for name in (*averages, *WRAPPERS):
        if name in inner and (_is_state(inner[name]) or not _is_state(found)):
            return inner[name]
    return next(iter(inner.values())) if len(inner) == 1 and not _is_state(found) else found


def _holds(found: dict[Any, Any]) -> bool:
    """Whether there are tensors in a dictionary, or in one inside of it."""
    return _is_state(found) or any(_is_state(v) for v in found.values() if isinstance(v, dict))


def _is_state(found: dict[Any, Any]) -> bool:
    return any(isinstance(v, Tensor) for v in found.values())


def _sound(tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The tensors; InvdiffError when they claim more numbers than the file has, or are not finite.

    A tensor may repeat few numbers by strides of 0, and would fill the memory when it is copied.
    """
    size = path.stat().st_size
    for name, value in tensors.items():
        if value.is_meta:  # a name and a shape, without memory
            continue
        if value.numel() * value.element_size() > size:
            raise InvdiffError(
                f"The tensor {name} of {path} claims {value.numel()} numbers, more than the file "
                "has; fetch it again."
            )
        if value.is_floating_point() and not value.isfinite().all():
            raise InvdiffError(f"The tensor {name} of {path} is not finite; fetch the file again.")
    return tensors
