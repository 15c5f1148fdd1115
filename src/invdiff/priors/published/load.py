"""Which converter a file is for, and the cache of what was converted."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from invdiff.core import InvdiffError
from invdiff.core import cache as kept
from invdiff.priors.published import (
    adm,
    consistency,
    ddpm,
    edm,
    files,
    layouts,
    network,
    score_sde,
)
from invdiff.priors.published.base import Converted, Options
from invdiff.priors.published.rows import row

FORMAT = "invdiff-converted-2"
"""In the metadata of a converted file, and in the name of a cached one; changes with converters."""


@dataclasses.dataclass(frozen=True, eq=False)
class Checkpoint:
    """A network that was loaded, and what is known of it. source: sha256 of the file."""

    converted: Converted
    net: nn.Module
    source: str


def load(path: Path, options: Options, dtype: torch.dtype = torch.float32) -> Checkpoint:
    """The network of a file of weights, converted, or as it was converted before.

    Raises InvdiffError, in one sentence, for whatever is missing, broken or not known.
    """
    files.check_file(path)
    source, cached, built = files.sha256(path), None, None
    converted: Converted | None
    if path.suffix == ".safetensors" and FORMAT in files.safetensors_metadata(path):
        content = files.read(path)
        converted = _restored(content.tensors, content.metadata)
        if options != Options() and options != Options(any_size=True):
            raise InvdiffError(f"{path} was converted with its options; leave them out.")
        source = content.metadata["source"]
    else:
        cached = cache_file(source, options)
        converted, built = _kept(cached) if cached else (None, None)
        if converted is None:
            converted = convert(files.read(path), options, str(path))
            if cached and not any(v.is_meta for v in converted.tensors.values()):
                kept.write(cached, *_form(converted, source))
        else:
            converted = _denoiser(converted, str(path))
    try:
        built = built or network.build(converted)
    except InvdiffError as error:
        raise InvdiffError(f"{path}: {error}") from error
    net = nn.Module.to(built, dtype)  # diffusers' own `to` prints advice
    tensors: dict[str, Tensor] = {}
    return Checkpoint(dataclasses.replace(converted, tensors=tensors), net, source)


def convert(content: files.Content, options: Options, name: str) -> Converted:
    """The network of a file in our terms; its names tell who wrote it."""
    try:
        return _denoiser(_converted(content, options), name)
    except InvdiffError as error:
        raise InvdiffError(f"{name}: {error}") from error
    except (LookupError, TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
        raise InvdiffError(
            f"The shapes of the tensors in {name} are of no network ({type(error).__name__}); "
            "fetch the file again."
        ) from error


def _converted(content: files.Content, options: Options) -> Converted:
    tensors = layouts.denoiser(content.tensors)
    if consistency.is_one(tensors):
        return consistency.convert(tensors, options)
    if adm.MARK in tensors:
        return adm.convert(tensors, options)
    if ddpm.MARK in tensors:
        return ddpm.convert(tensors, options)
    if edm.MARK in tensors:
        bare = {"class_name": "iDDPMPrecond"} if "u" in content.tensors else {}
        return edm.convert(tensors, options, content.pickled or bare)
    return score_sde.convert(tensors, options)


def _denoiser(c: Converted, name: str) -> Converted:
    """The network; InvdiffError unless it gives what it takes, with or without a variance.

    name: of the file, which alone tells a distilled consistency model from one of EDM.
    """
    if c.layout == "consistency_models":
        consistency.refuse_distilled(name)
    inside, outside = c.shape[0], c.config.get("out_channels", c.shape[0])
    if outside not in (inside, 2 * inside) or inside == outside == 6:
        raise InvdiffError(
            f"The network turns {inside} channels into {outside}, so it takes a second image (as "
            "super-resolution networks do) and is no denoiser; take one without."
        )
    return c


def save(converted: Converted, source: str, path: Path) -> None:
    """Write a converted network to a .safetensors file, in one move. source: hash of its origin."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors, metadata = _form(converted, source)
    handle, part = tempfile.mkstemp(dir=path.parent, suffix=".part")
    os.close(handle)
    try:
        save_file(tensors, part, metadata=metadata)
        Path(part).chmod(0o644)
        os.replace(part, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part)


def _form(converted: Converted, source: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What a file of a converted network holds: tensors and metadata."""
    tensors = {k: v.detach().contiguous().clone() for k, v in converted.tensors.items()}
    return tensors, {FORMAT: json.dumps(converted.facts()), "source": source}


def cache_file(source: str, options: Options) -> Path | None:
    """Where the converted weights of a file with these options are kept; None without a cache."""
    folder = kept.folder()
    if folder is None:
        return None
    told = dataclasses.replace(options, any_size=False)
    text = json.dumps(dataclasses.asdict(told), sort_keys=True)
    tag = hashlib.sha256(f"{FORMAT} {text}".encode()).hexdigest()[:8]
    return folder / kept.CONVERTED / f"{source[:32]}-{tag}.safetensors"


def _kept(path: Path) -> tuple[Converted | None, nn.Module | None]:
    """What was kept, with its network; None where nothing was, or where it is broken."""
    found = kept.read(path)
    try:
        converted = None if found is None else _restored(*found)
        return converted, None if converted is None else network.build(converted)
    except InvdiffError:
        return None, None


def _restored(tensors: dict[str, Tensor], metadata: dict[str, str]) -> Converted:
    try:
        converted = Converted(**network.facts(metadata[FORMAT]), tensors=tensors)
        row(converted.trained)
        _ = metadata["source"]
    except (AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise InvdiffError(
            f"A converted file does not tell what its network is ({type(error).__name__}); give "
            "the file that it was made from."
        ) from error
    return converted
