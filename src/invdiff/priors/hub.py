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
PREDICTS = {
    "epsilon": table.predicts_eps,
    "v_prediction": table.predicts_v,
    "sample": table.predicts_x0,
}
HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
CONFIGS = ["config.json", "unet/config.json", "model_index.json"]
SCHEDULES = ["scheduler_config.json", "scheduler/scheduler_config.json"]
WEIGHTS = "diffusion_pytorch_model"
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
    precond, value_range = _training(diffusers, config, schedule, prediction, betas, name)
    for ending in ("safetensors", "bin") if remote else ():
        at = "" if unet == folder else f"{unet.name}/"
        _download(name, [f"{at}{WEIGHTS}{mid}.{ending}*" for mid in ("", "-*-of-*")])
        if any(unet.glob(f"{WEIGHTS}*.{ending}")):
            break
    files = _weights(unet)
    net = _Network(_load(diffusers, unet, files), class_label).to(device, dtype)
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
        h, w = x.shape[-2:]
        _require(
            h % self.stride == w % self.stride == 0,
            f"The network takes images whose sides are multiples of {self.stride} pixels, but this "
            f"one has {h} x {w}; crop or pad it.",
        )
        label = self.class_label
        labels = None if label is None else torch.full((len(x),), label, device=x.device)
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
        why = f"This prior needs diffusers ({_brief(error)}); run: pip install diffusers accelerate"
        if "torchvision" in str(error):
            why = (
                "torchvision does not match this torch; uninstall it or install the matching build."
            )
        raise InvdiffError(why) from error
    return diffusers


def _download(name: str, patterns: list[str]) -> Path:
    """The hub's files that match, kept in the user's cache, which serves alone when offline."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=patterns))
    except RepositoryNotFoundError as error:
        raise InvdiffError(
            f"There is no folder {name}, and the Hugging Face hub shows no model of that name; "
            "check the spelling, or run `hf auth login` for a private one."
        ) from error
    except Exception as error:
        raise InvdiffError(
            f"There is no folder {name}, and the Hugging Face hub did not answer "
            f"({type(error).__name__}); check the network, or give the folder of a model."
        ) from error


def _layout(folder: Path, name: str) -> tuple[Path, Path | None]:
    """The folder of the network, and the file of its scheduler if there is one."""
    what = "is a file" if folder.exists() else "does not exist"
    _require(folder.is_dir(), f"{name} {what}; give the folder of a diffusers model.")
    if (folder / "model_index.json").is_file():
        index = _read(folder / "model_index.json")
        parts = [k for k, v in index.items() if isinstance(v, list) and v and v[0] is not None]
        _require(
            not {"vae", "vqvae", "movq"} & set(parts),
            f"{name} works on latents, and latent priors are not supported yet; take a pixel "
            "model, whose pipeline has no vae.",
        )
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
    _require(
        kind == "UNet2DModel",
        f"{name} holds a {kind}, and only UNet2DModel is supported; take a pixel model that is not "
        "guided by text.",
    )
    channels, out = config.get("in_channels", 3), config.get("out_channels", 3)
    _require(
        out in (channels, 2 * channels),
        f"The network of {name} turns {channels} channels into {out}, so it has a second input; "
        "take a model of images alone.",
    )
    count, embed = config.get("num_class_embeds"), config.get("class_embed_type")
    _require(
        embed in (None, "timestep"),
        f"{name} takes {embed} embeddings of a class; take a model whose classes are numbers.",
    )
    if count is None and embed is None:
        _require(class_label is None, f"{name} knows no classes; leave class_label out.")
    else:
        known = f"from 0 to {count - 1}" if count else "of at least 0"
        _require(
            class_label is not None and 0 <= class_label < (count or class_label + 1),
            f"{name} is class-conditional; give class_label, a number {known}.",
        )


def _training(
    diffusers: Any,
    network: dict[str, Any],
    schedule: Path | None,
    prediction: str | None,
    betas: Sequence[float] | None,
    name: str,
) -> tuple[Precond, tuple[float, float]]:
    """How the network was trained, in diffusers' unit of time, and the range of its images."""
    choices = ", ".join(PREDICTS)
    _require(
        prediction in (None, *PREDICTS), f"A prediction is one of {choices}, not {prediction!r}."
    )
    _require(
        schedule or prediction,
        f"What the network of {name} predicts is not known without a scheduler_config.json; put "
        f"that file beside it, or give prediction (one of {choices}) and betas.",
    )
    config = _read(schedule) if schedule else {"_class_name": "DDPMScheduler"}
    kind = str(config.get("_class_name"))
    try:
        scheduler = getattr(diffusers, kind).from_config(config)
        c = scheduler.config
    except Exception as error:
        raise InvdiffError(
            f"diffusers {diffusers.__version__} cannot make the {kind} of {schedule} "
            f"({_brief(error)}); give a scheduler_config.json that it knows."
        ) from error
    old = "sample" if config.get("predict_epsilon") is False else None  # diffusers before 0.9
    known = prediction or config.get("prediction_type", old) or c.get("prediction_type", "epsilon")
    fourier = network.get("time_embedding_type") == "fourier"
    if hasattr(scheduler, "alphas_cumprod") and kind not in DISTILLED and not fourier:
        if known in PREDICTS and c.get("timestep_type", "discrete") == "discrete":
            bars = scheduler.alphas_cumprod.numpy()
            bars = bars if betas is None else np.cumprod(1 - np.asarray(betas, np.float64))
            return PREDICTS[known](bars), (-1.0, 1.0)
    _require(
        prediction is None and betas is None,
        f"The model {name} of {kind} has no table of betas; leave prediction and betas out.",
    )
    if kind in ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler") and not fourier:
        p = table.predicts_edm(c.sigma_data)
        sign = -1 if known == "v_prediction" else 1
        p = replace(p, c_out=lambda s, c_out=p.c_out: sign * c_out(s))
        return replace(p, sigma_min=c.sigma_min, sigma_max=c.sigma_max), (-1.0, 1.0)
    if kind == "ScoreSdeVeScheduler":
        p = replace(table.predicts_score(), c_noise=lambda s: s)  # it takes the logarithm itself
        return replace(p, sigma_min=c.sigma_min, sigma_max=c.sigma_max), (0.0, 1.0)
    raise InvdiffError(
        f"{name} was made for {kind}, prediction {known}{', fourier times' if fourier else ''}, "
        f"which is not supported; take a model of DDPMScheduler that predicts {choices}."
    )


def _weights(unet: Path) -> list[Path]:
    """The weight files, safetensors before .bin; all parts where they are split."""
    for ending in ("safetensors", "bin"):
        whole = unet / f"{WEIGHTS}.{ending}"
        files = [whole] if whole.is_file() else sorted(unet.glob(f"{WEIGHTS}-*-of-*.{ending}"))
        if files:
            return files
    raise InvdiffError(f"{unet} has no weights; it needs {WEIGHTS}.safetensors or {WEIGHTS}.bin.")


def _load(diffusers: Any, unet: Path, files: list[Path]) -> Any:
    """The network with its weights; diffusers reads .bin files with weights_only=True."""
    try:
        net, info = diffusers.UNet2DModel.from_pretrained(
            str(unet),
            use_safetensors=files[0].suffix == ".safetensors",
            local_files_only=True,
            output_loading_info=True,
        )
    except Exception as error:
        raise InvdiffError(
            f"The weights {files[0]} cannot be loaded ({_brief(error)}); they are truncated, no "
            "weights at all, or do not fit config.json, so fetch the model again."
        ) from error
    missing, extra = len(info["missing_keys"]), len(info["unexpected_keys"])
    _require(
        not missing and not extra,
        f"The weights {files[0]} do not fit config.json: {missing} tensors are missing and {extra} "
        "have no place; fetch the model again.",
    )
    return net


def _fingerprint(files: list[Path], p: Precond, class_label: int | None) -> str:
    """Hash of the weights, and one of their use, from rounded numbers so that machines agree."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(np.memmap(path, mode="r"))
    use = [f(s) for f in (p.c_skip, p.c_out, p.c_noise) for s in (0.05, 0.5, 5.0, 50.0)]
    text = " ".join(f"{v:.5g}" for v in [*use, p.sigma_min, p.sigma_max]) + f" {class_label}"
    return f"{digest.hexdigest()[:16]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _brief(error: BaseException) -> str:
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return line if len(line) <= 120 else f"{line[:117]}..."
