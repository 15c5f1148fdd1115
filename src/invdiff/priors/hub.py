"""Any diffusion model in diffusers' format as a prior: a folder, or a name on the hub."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from invdiff.core import InvdiffError, as_usual
from invdiff.core.arguments import checked
from invdiff.priors.base import Prior
from invdiff.priors.guidance import Guided
from invdiff.priors.precond import NetworkPrior, Precond
from invdiff.priors.quiet import quiet
from invdiff.priors.schedules import Prediction, require, training

HUB, HUB_NAME = "hf:", re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
"""What names of models on the Hugging Face hub begin with, and the rest of them."""
CONFIGS = ["config.json", "unet/config.json", "model_index.json"]
SCHEDULES = ["scheduler_config.json", "scheduler/scheduler_config.json"]
WEIGHTS, PARTS = "diffusion_pytorch_model", ("", "-*-of-*")


@checked
@as_usual()
def load_diffusers(
    spec: str | Path,
    device: torch.device | str = "cpu",
    *,
    prediction: Prediction | None = None,
    betas: Sequence[float] | None = None,
    class_label: int | None = None,
    null_label: int | None = None,
    prompt: str | None = None,
    negative_prompt: str | None = None,
    guidance: float = 1.0,
    any_size: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Prior:
    """The prior of a model that diffusers, or a tool that writes its format, has saved.

    spec: a folder with config.json and weights (.safetensors or .bin) of a UNet2DModel, a pipeline
    folder with model_index.json (of such a network, or of latents: see `pipelines.py`), or the name
    of one on the Hugging Face hub, such as "hf:google/ddpm-cat-256". Only a str that begins with
    hf: reaches the internet.
    device, dtype: where, and in which floating type, the network runs.
    prediction: what the network predicts; None reads it from scheduler_config.json. A bare network
    without that file needs it; where both are given, this one counts.
    betas: variances of the training steps, in (0, 1); None reads them from scheduler_config.json
    and, without that file, takes DDPM's 1000 from 1e-4 to 0.02 (Ho et al. 2020, 2006.11239).
    class_label: which class, from 0, of a class-conditional model; None for any other.
    null_label: the class that stands for no class, where the model was trained with one.
    prompt, negative_prompt: of a model that reads text; None is the empty text.
    guidance: w of D_u + w (D_c - D_u), classifier-free guidance (Ho and Salimans 2022, 2207.12598),
    where D_c sees the class or prompt and D_u the null_label or negative_prompt. 1 is D_c alone, at
    half of the cost; any other w is the denoiser of no law.
    any_size: allow all sides that are multiples of 2^(levels - 1) pixels, and not only the size of
    training. Networks with attention are at their best at that size.

    Images are (B, C, H, W) on [-1, 1], or on [0, 1] for a model of ScoreSdeVeScheduler. The first
    16 digits of fingerprint are those of the weight file's sha256, the others tell how it is used.
    Raises InvdiffError, in one sentence, for whatever is missing, broken or not supported.
    """
    name, remote = str(spec), isinstance(spec, str) and spec.startswith(HUB)
    if remote:
        _checked_name(name)
    folder = None if remote else _local(name)
    diffusers = import_diffusers()
    folder = folder or _download(name, CONFIGS + SCHEDULES)
    if _components(folder) & {"vae", "vqvae", "movq"}:
        from invdiff.priors.pipelines import NEEDED, load_latent

        why = "works on latents and has a scheduler; leave prediction and betas out"
        require(prediction is None and betas is None, f"{name} {why}.")
        folder = _download(name, NEEDED) if remote else folder
        told = (prompt, negative_prompt, guidance, class_label, null_label)
        return load_latent(folder, name, device, dtype, *told)
    why = "reads no text; leave prompt and negative_prompt out"
    require(prompt is negative_prompt is None, f"{name} {why}.")
    unet, schedule = _layout(folder, name)
    config = read_config(unet / "config.json")
    _check_network(config, class_label, name)
    _check_guidance(config, class_label, null_label, guidance, name)
    fourier = config.get("time_embedding_type") == "fourier"  # it takes the logarithm of sigma
    read = read_config(schedule) if schedule else {}
    precond, value_range = training(diffusers, fourier, schedule, read, prediction, betas, name)
    if remote:
        at = "" if unet == folder else f"{unet.name}/"
        _download(name, [f"{at}{WEIGHTS}{mid}.safetensors*" for mid in PARTS])
        for end in (".bin*", ".fp16*.safetensors*"):
            if not weight_files(unet)[0]:
                _download(name, [f"{at}{WEIGHTS}{mid}{end}" for mid in PARTS])
    trained, files = _load(diffusers, unet)
    size = None if any_size else config.get("sample_size")
    h, w = size if isinstance(size, list) else (size, size)
    shape, source = (config.get("in_channels", 3), h, w), sha256(files)
    stride = 2 ** (len(trained.config.block_out_channels) - 1)
    counts = trained.config.time_embedding_type == "learned"

    def of(label: int | None) -> NetworkPrior:
        net = Labelled(trained, stride, label, counts).to(device, dtype)
        prior = NetworkPrior(net, precond, shape, value_range, name)
        prior.learned_variance = config.get("out_channels", 3) == 2 * shape[0]
        prior._hash = fingerprint(source, precond, label)
        if schedule is None and betas is None:
            prior.presumed = ("schedule linear", "train_steps 1000")
        return prior

    return of(class_label) if guidance == 1 else Guided(of(class_label), of(null_label), guidance)


def local(spec: str | Path) -> Path | None:
    """The file or folder that spec names; None where there is none, whatever it is."""
    try:
        path = Path(spec).expanduser()
        return path if str(spec).strip() and path.exists() else None
    except (OSError, RuntimeError, ValueError):  # too long, no such user, a null byte
        return None


def _checked_name(name: str) -> None:
    """Raise InvdiffError unless name is hf:OWNER/NAME."""
    why = f"A model of the hub is {HUB}OWNER/NAME, found {name[:100]}"
    require(HUB_NAME.fullmatch(name.removeprefix(HUB)), f"{why}.")


def _local(name: str) -> Path:
    """The folder of a model. Raises InvdiffError, before anything is imported, where it is none."""
    folder = local(name)
    shown = name if len(name) <= 100 else f"{name[:100]}..."
    on_hub = HUB_NAME.fullmatch(name) and len(name) <= 100
    hint = f"; a model of the Hugging Face hub is {HUB}{name}" if on_hub else ""
    why = f"There is no file or folder {shown!r}; give the folder of a diffusers model{hint}."
    if folder is None:
        raise InvdiffError(why)
    require(folder.is_dir(), f"{shown} is no folder; give the folder of a diffusers model.")
    why = f"{shown} holds no model of diffusers, which has a config.json or a model_index.json"
    require(any((folder / c).is_file() for c in CONFIGS), f"{why}; give the folder of one.")
    return folder


class Labelled(nn.Module):
    """F(x, time) of a network with one class for all images, or of one without classes.

    net: called with x (B, C, H, W), time (B,) and labels (B,) or None; gives a tensor, or an object
    with the tensor `sample`. stride: sides of images are its multiples. counts: whether the network
    takes its time as a whole number.
    """

    def __init__(
        self, net: nn.Module, stride: int, label: int | None, counts: bool = False
    ) -> None:
        super().__init__()
        self.net, self.stride, self.label, self.counts = net, stride, label, counts

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        (h, w), n, k = x.shape[-2:], self.stride, self.label
        why = f"The network takes sides that are multiples of {n} pixels"
        require(h % n == w % n == 0, f"{why}, but this image has {h} x {w}; crop or pad it.")
        time = time.round().long() if self.counts else time
        labels = None if k is None else torch.full((len(x),), k, device=x.device)
        out = self.net(x, time, labels)
        found: Tensor = out if isinstance(out, Tensor) else out.sample
        return found


def import_diffusers(part: str = "UNet2DModel") -> Any:
    """The module; InvdiffError when it, or this part of it, cannot be imported."""
    try:
        import diffusers

        _ = getattr(diffusers, part)  # its parts are imported when they are first named
    except (ImportError, RuntimeError) as error:
        why = "This prior needs diffusers; run: pip install diffusers accelerate"
        if "torchvision" in str(error):
            why = "torchvision does not match this torch; uninstall it or install the matching one"
        raise InvdiffError(f"{why} ({type(error).__name__}).") from error
    return diffusers


def _download(name: str, patterns: list[str]) -> Path:
    """The hub's files that match, kept in the user's cache, which serves alone when offline."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        return Path(snapshot_download(name.removeprefix(HUB), allow_patterns=patterns))
    except Exception as error:
        why = f"did not answer ({type(error).__name__}); check the network, or give a folder"
        if isinstance(error, RepositoryNotFoundError):
            why = "shows no such model; check the name, or run `hf auth login` for a private one"
        raise InvdiffError(f"{name}: the hub {why}.") from error


def _layout(folder: Path, name: str) -> tuple[Path, Path | None]:
    """The folder of the network, and the file of its scheduler if there is one."""
    if (folder / "model_index.json").is_file():
        why = "has no unet; take a pixel model with one"
        require("unet" in _components(folder), f"The pipeline {name} {why}.")
    # The first pipelines, google/ddpm-cat-256 among them, keep all files in one folder.
    unet = folder / "unet" if (folder / "unet").is_dir() else folder
    return unet, next((folder / s for s in SCHEDULES if (folder / s).is_file()), None)


def _components(folder: Path) -> set[str]:
    """Names of the parts of a pipeline; none where the folder holds no pipeline."""
    if not (folder / "model_index.json").is_file():
        return set()
    index = read_config(folder / "model_index.json")
    return {k for k, v in index.items() if isinstance(v, list) and v and v[0] is not None}


def read_config(path: Path) -> dict[str, Any]:
    require(path.is_file(), f"{path} is missing; give the folder of a diffusers model.")
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise InvdiffError(f"{path} cannot be read ({error.strerror}).") from error
    except (TypeError, ValueError, RecursionError) as error:
        raise InvdiffError(f"{path} is not a JSON configuration; fetch the model again.") from error


def _check_network(config: dict[str, Any], class_label: int | None, name: str) -> None:
    """Raise InvdiffError when the network is no denoiser of pixels, or its class is not stated."""
    kind = config.get("_class_name", "network of unknown class")
    advice = "and only UNet2DModel stands alone; give the folder of its whole pipeline"
    require(kind == "UNet2DModel", f"{name} holds a {kind}, {advice}.")
    n, out = config.get("in_channels", 3), config.get("out_channels", 3)
    advice = "so it is no denoiser of images; take a model without a second input"
    require(out in (n, 2 * n), f"The network of {name} turns {n} channels into {out}, {advice}.")
    count, embed = config.get("num_class_embeds"), config.get("class_embed_type")
    advice = "which are not supported; take a model whose classes are numbers"
    require(embed is None, f"{name} takes {embed} embeddings of classes, {advice}.")
    if count is None:
        require(class_label is None, f"{name} knows no classes; leave label (class_label) out.")
    else:
        why = "is class-conditional; give label (class_label), a whole number"
        require(class_label in range(count), f"{name} {why} from 0 to {count - 1}.")


def _check_guidance(
    config: dict[str, Any], label: int | None, null: int | None, guidance: float, name: str
) -> None:
    """Raise InvdiffError where guidance has nothing to go to or from, or null_label no guidance."""
    if guidance == 1:
        why = (
            "null_label counts with a guidance other than 1 alone; give guidance, or leave it out."
        )
        require(null is None, why)
        return
    why = "Guidance needs a model with classes or text"
    require(label is not None, f"{why}, and {name} has neither; leave guidance out.")
    count = config["num_class_embeds"]
    why = f"Guidance of {name} needs null_label, the class from 0 to {count - 1} that means none"
    require(null in range(count), f"{why}.")


def weight_files(unet: Path) -> tuple[list[Path], str | None]:
    """The weight files of a network, several where they are split, and their variant, if any.

    safetensors before .bin; files without a variant before those with one, such as "fp16".
    """
    for end in ("safetensors", "bin"):
        whole = re.compile(rf"{WEIGHTS}(?:\.(\w+))?(?:-\d+-of-\d+)?\.{end}")
        found: dict[str, list[Path]] = {}
        for path in sorted(unet.glob(f"{WEIGHTS}*.{end}")):
            if match := whole.fullmatch(path.name):
                found.setdefault(match[1] or "", []).append(path)
        for variant in ("", "fp16", "bf16", *sorted(found)):
            if variant in found:
                return found[variant], variant or None
    return [], None


def _load(diffusers: Any, unet: Path) -> tuple[Any, list[Path]]:
    """The network, and its weight files. diffusers reads .bin with weights_only=True, so that no
    file can run code."""
    files, variant = weight_files(unet)
    require(files, f"{unet} has no weights; it needs {WEIGHTS}.safetensors or {WEIGHTS}.bin.")
    file, safe, again = files[0], files[0].suffix != ".bin", "so fetch the model again"
    try:
        with quiet():
            net, info = diffusers.UNet2DModel.from_pretrained(
                str(unet), use_safetensors=safe, local_files_only=True, variant=variant,
                output_loading_info=True,
            )  # fmt: skip
    except Exception as error:
        why = f"({type(error).__name__}): they are truncated, no weights, or do not fit config.json"
        raise InvdiffError(f"The weights {file} cannot be loaded {why}, {again}.") from error
    missing, extra = len(info["missing_keys"]), len(info["unexpected_keys"])
    why = f"do not fit config.json: {missing} tensors are missing and {extra} have no place"
    require(not missing and not extra, f"The weights {file} {why}, {again}.")
    return net, files


def sha256(files: list[Path]) -> str:
    """Hash of the bytes of files, one after the other."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(np.memmap(path, mode="r").data)
    return digest.hexdigest()


def fingerprint(source: str, p: Precond, extra: object) -> str:
    """The start of a hash of weights, and a hash of their use: p, rounded so that machines agree,
    and extra."""
    use = [f(s) for f in (p.c_skip, p.c_out, p.c_noise) for s in (0.05, 0.5, 5.0, 50.0)]
    text = " ".join(f"{v:.5g}" for v in [*use, p.sigma_min, p.sigma_max]) + f" {extra}"
    return f"{source[:16]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
