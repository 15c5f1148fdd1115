"""Any pixel diffusion model in diffusers' format as a prior: a folder, or a name on the hub."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from invdiff.core import InvdiffError
from invdiff.priors import precond as table
from invdiff.priors.base import Prior
from invdiff.priors.precond import NetworkPrior, Precond

Prediction = Literal["epsilon", "v_prediction", "sample"]
PREDICTS = dict(epsilon=table.predicts_eps, v_prediction=table.predicts_v, sample=table.predicts_x0)
HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
CONFIGS = ["config.json", "unet/config.json", "model_index.json"]
SCHEDULES = ["scheduler_config.json", "scheduler/scheduler_config.json"]
WEIGHTS, PARTS = "diffusion_pytorch_model", ("", "-*-of-*")
BY_SIGMA = ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler", "ScoreSdeVeScheduler")
DISTILLED = ("LCMScheduler", "TCDScheduler", "ConsistencyDecoderScheduler")


def load_diffusers(
    spec: str | Path,
    device: torch.device | str = "cpu",
    *,
    prediction: Prediction | None = None,
    betas: Sequence[float] | None = None,
    class_label: int | None = None,
    any_size: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Prior:
    """The prior of a UNet2DModel that diffusers, or a tool that writes its format, has saved.

    spec: a folder with config.json and weights (.safetensors or .bin), a pipeline folder with
    model_index.json, or a hub name such as "google/ddpm-cat-256". Only a str of the form owner/name
    that is no local path reaches the internet; a Path is always local.
    device, dtype: where, and in which floating type, the network runs.
    prediction: what the network predicts; None reads it from scheduler_config.json. A bare network
    without that file needs it; where both are given, this one counts.
    betas: variances of the training steps, in (0, 1); None reads them from scheduler_config.json
    and, without that file, takes DDPM's 1000 from 1e-4 to 0.02 (Ho et al. 2020, 2006.11239).
    class_label: which class, from 0, of a class-conditional model; None for any other.
    any_size: allow all sides that are multiples of 2^(levels - 1) pixels, and not only the size of
    training. Networks with attention are at their best at that size.

    Images are (B, C, H, W) on [-1, 1], or on [0, 1] for a model of ScoreSdeVeScheduler. The first
    16 digits of fingerprint are those of the weight file's sha256, the last 8 tell how it is used.
    Raises InvdiffError, in one sentence, for whatever is missing, broken or not supported.
    """
    name, diffusers = str(spec), _diffusers()
    folder = Path(spec).expanduser()
    remote = isinstance(spec, str) and not folder.exists() and HUB_NAME.fullmatch(spec) is not None
    folder = _download(name, CONFIGS + SCHEDULES) if remote else folder
    unet, schedule = _layout(folder, name)
    config = _read(unet / "config.json")
    _check_network(config, class_label, name)
    fourier = config.get("time_embedding_type") == "fourier"  # it takes the logarithm of sigma
    precond, value_range = _training(diffusers, fourier, schedule, prediction, betas, name)
    if remote:
        at = "" if unet == folder else f"{unet.name}/"
        _download(name, [f"{at}{WEIGHTS}{mid}.safetensors*" for mid in PARTS])
        if not any(unet.glob(f"{WEIGHTS}*.safetensors")):
            _download(name, [f"{at}{WEIGHTS}{mid}.bin*" for mid in PARTS])
    trained, files = _load(diffusers, unet)
    net = _Network(trained, class_label).to(device, dtype)
    size = None if any_size else config.get("sample_size")
    h, w = size if isinstance(size, list) else (size, size)
    prior = NetworkPrior(net, precond, (config.get("in_channels", 3), h, w), value_range, name)
    prior._hash = _fingerprint(files, precond, class_label)
    return prior


class _Network(nn.Module):
    """F(x, time) of a UNet2DModel, with its class."""

    def __init__(self, unet: Any, class_label: int | None) -> None:
        super().__init__()
        self.unet, self.class_label = unet, class_label
        self.stride = 2 ** (len(unet.config.block_out_channels) - 1)
        self.counts = unet.config.time_embedding_type == "learned"

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        (h, w), n = x.shape[-2:], self.stride
        why = f"The network takes sides that are multiples of {n} pixels"
        _require(h % n == w % n == 0, f"{why}, but this image has {h} x {w}; crop or pad it.")
        k = self.class_label
        labels = None if k is None else torch.full((len(x),), k, device=x.device)
        out: Tensor = self.unet(x, time.round().long() if self.counts else time, labels).sample
        return out


def _require(fine: object, sentence: str) -> None:
    if not fine:
        raise InvdiffError(sentence)


def _diffusers() -> Any:
    """The module; InvdiffError when it cannot be imported."""
    try:
        import diffusers

        _ = diffusers.UNet2DModel  # its parts are imported when they are first named
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
        return Path(snapshot_download(name, allow_patterns=patterns))
    except Exception as error:
        why = f"did not answer ({type(error).__name__}); check the network, or give a folder"
        if isinstance(error, RepositoryNotFoundError):
            why = "shows no such model; check the name, or run `hf auth login` for a private one"
        raise InvdiffError(f"{name} is no folder, and the hub {why}.") from error


def _layout(folder: Path, name: str) -> tuple[Path, Path | None]:
    """The folder of the network, and the file of its scheduler if there is one."""
    _require(folder.is_dir(), f"{name} is no folder; give the folder of a diffusers model.")
    if (folder / "model_index.json").is_file():
        index = _read(folder / "model_index.json")
        parts = {k for k, v in index.items() if isinstance(v, list) and v and v[0] is not None}
        why = "works on latents, and latent priors are not supported yet; take a pixel model"
        _require(not parts & {"vae", "vqvae", "movq"}, f"{name} {why}.")
        _require("unet" in parts, f"The pipeline {name} has no unet; take a pixel model with one.")
    # The first pipelines, google/ddpm-cat-256 among them, keep all files in one folder.
    unet = folder / "unet" if (folder / "unet").is_dir() else folder
    return unet, next((folder / s for s in SCHEDULES if (folder / s).is_file()), None)


def _read(path: Path) -> dict[str, Any]:
    _require(path.is_file(), f"{path} is missing; give the folder of a diffusers model.")
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError) as error:
        raise InvdiffError(f"{path} is not a JSON configuration; fetch the model again.") from error


def _check_network(config: dict[str, Any], class_label: int | None, name: str) -> None:
    """Raise InvdiffError when the network is no denoiser of pixels, or its class is not stated."""
    kind = config.get("_class_name", "network of unknown class")
    advice = "and only UNet2DModel is supported; take a pixel model without text"
    _require(kind == "UNet2DModel", f"{name} holds a {kind}, {advice}.")
    n, out = config.get("in_channels", 3), config.get("out_channels", 3)
    advice = "so it is no denoiser of images; take a model without a second input"
    _require(out in (n, 2 * n), f"The network of {name} turns {n} channels into {out}, {advice}.")
    count, embed = config.get("num_class_embeds"), config.get("class_embed_type")
    advice = "which are not supported; take a model whose classes are numbers"
    _require(embed is None, f"{name} takes {embed} embeddings of classes, {advice}.")
    if count is None:
        _require(class_label is None, f"{name} knows no classes; leave class_label out.")
    else:
        why = f"is class-conditional; give class_label, an integer from 0 to {count - 1}"
        _require(class_label in range(count), f"{name} {why}.")


def _training(
    diffusers: Any,
    fourier: bool,
    schedule: Path | None,
    prediction: str | None,
    betas: Sequence[float] | None,
    name: str,
) -> tuple[Precond, tuple[float, float]]:
    """How the network was trained, in diffusers' unit of time, and the range of its images."""
    kinds = ", ".join(PREDICTS)
    _require(prediction in (None, *PREDICTS), f"prediction is one of {kinds}, not {prediction!r}.")
    why = "has no scheduler_config.json, which tells what the network predicts; put it there"
    _require(schedule or prediction, f"{name} {why}, or give prediction ({kinds}) and betas.")
    config = _read(schedule) if schedule else {"_class_name": "DDPMScheduler"}
    kind = str(config.get("_class_name"))
    try:
        scheduler = getattr(diffusers, kind).from_config(config)
        c = scheduler.config
    except Exception as error:
        why = f"and diffusers {diffusers.__version__} cannot make it ({type(error).__name__})"
        raise InvdiffError(f"{schedule} is a {kind}, {why}; give another.") from error
    old = "sample" if config.get("predict_epsilon") is False else None  # diffusers before 0.9
    known = prediction or config.get("prediction_type", old) or c.get("prediction_type", "epsilon")
    counts = hasattr(scheduler, "alphas_cumprod") and kind not in DISTILLED
    counts = counts and c.get("timestep_type", "discrete") == "discrete" and known in PREDICTS
    if counts and not fourier:
        bars = scheduler.alphas_cumprod.numpy()
        bars = bars if betas is None else np.cumprod(1 - np.asarray(betas, np.float64))
        return PREDICTS[known](bars), (-1.0, 1.0)
    if kind in BY_SIGMA:
        given = prediction is not None or betas is not None
        _require(not given, f"{name} has no table ({kind}); leave prediction and betas out.")
        if kind == "ScoreSdeVeScheduler":
            p = replace(table.predicts_score(), c_noise=float)  # time = sigma
            return replace(p, sigma_min=c.sigma_min, sigma_max=c.sigma_max), (0.0, 1.0)
        if known in ("epsilon", "v_prediction") and not fourier:
            p = table.predicts_edm(c.sigma_data)
            p = replace(p, sigma_min=c.sigma_min, sigma_max=c.sigma_max)
            c_out, minus = p.c_out, known == "v_prediction"  # diffusers' name for the other sign
            return (replace(p, c_out=lambda s: -c_out(s)) if minus else p), (-1.0, 1.0)
    why = f"{kind}, prediction {known}{', fourier times' if fourier else ''}"
    advice = f"take a model of DDPMScheduler that predicts {kinds}"
    raise InvdiffError(f"{name} was made for {why}, which is not supported; {advice}.")


def _load(diffusers: Any, unet: Path) -> tuple[Any, list[Path]]:
    """The network, and its weight files: several where they are split, safetensors before .bin.

    diffusers reads .bin with weights_only=True, so that no file can run code.
    """
    patterns = [f"{WEIGHTS}{mid}.{end}" for end in ("safetensors", "bin") for mid in PARTS]
    files: list[Path] = next(filter(None, (sorted(unet.glob(p)) for p in patterns)), [])
    _require(files, f"{unet} has no weights; it needs {WEIGHTS}.safetensors or {WEIGHTS}.bin.")
    file, safe, again = files[0], files[0].suffix != ".bin", "so fetch the model again"
    try:
        net, info = diffusers.UNet2DModel.from_pretrained(
            str(unet), use_safetensors=safe, local_files_only=True, output_loading_info=True
        )
    except Exception as error:
        why = f"({type(error).__name__}): they are truncated, no weights, or do not fit config.json"
        raise InvdiffError(f"The weights {file} cannot be loaded {why}, {again}.") from error
    missing, extra = len(info["missing_keys"]), len(info["unexpected_keys"])
    why = f"do not fit config.json: {missing} tensors are missing and {extra} have no place"
    _require(not missing and not extra, f"The weights {file} {why}, {again}.")
    return net, files


def _fingerprint(files: list[Path], p: Precond, class_label: int | None) -> str:
    """Hash of the weights, and one of their use, from rounded numbers so that machines agree."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(np.memmap(path, mode="r").data)
    use = [f(s) for f in (p.c_skip, p.c_out, p.c_noise) for s in (0.05, 0.5, 5.0, 50.0)]
    text = " ".join(f"{v:.5g}" for v in [*use, p.sigma_min, p.sigma_max]) + f" {class_label}"
    return f"{digest.hexdigest()[:16]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
