"""Pipelines of diffusers that work on latents, as priors: Stable Diffusion and its relatives.

The text is encoded once, when the prior is made; the text encoders are then dropped.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from invdiff.core import InvdiffError
from invdiff.operators.base import Operator
from invdiff.priors.base import Prior
from invdiff.priors.guidance import Guided
from invdiff.priors.hub import SCHEDULES, fingerprint, import_diffusers, read_config, sha256
from invdiff.priors.latent import LatentPrior
from invdiff.priors.precond import NetworkPrior
from invdiff.priors.schedules import require, training

PARTS = ("vae", "vqvae", "unet", "transformer", "scheduler", *(
    f"{kind}{end}" for kind in ("text_encoder", "tokenizer") for end in ("", "_2", "_3")
))  # fmt: skip
FILES = ("*.json", "*.txt", "*.model", "*model.safetensors", "*model-*-of-*.safetensors")
NEEDED = ["model_index.json", *(f"{part}/{file}" for part in PARTS for file in FILES)]
"""Files of a model on the hub that are downloaded: no safety checker, no duplicates."""

Text = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class _Half(Operator):
    """Half of an autoencoder that diffusers has loaded, in its own floating type.

    A latent z stands for mean + std z of the autoencoder. factor: pixels to a side of a latent's
    pixel; multiple: of which the sides of an image must be multiples.
    """

    vae: Any
    mean: Tensor
    std: Tensor
    channels: int
    factor: int
    multiple: int

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> _Half:
        self.vae.to(device)
        return super().to(device, dtype)


@dataclass(frozen=True, eq=False)
class Decoder(_Half):
    """Latents (B, C, h, w) to images (B, 3, factor h, factor w), not clipped."""

    def __call__(self, x: Tensor) -> Tensor:
        z = x * self._as("std", x) + self._as("mean", x)
        image: Tensor = self.vae.decode(z.to(self.vae.dtype)).sample
        return image.to(x.dtype)

    def y_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (self.vae.config.out_channels, *(self.factor * n for n in x_shape[-2:]))


@dataclass(frozen=True, eq=False)
class Encoder(_Half):
    """Images (B, 3, H, W) to the latents' mean; of a quantised code, the point before it."""

    def __call__(self, x: Tensor) -> Tensor:
        code = self.vae.encode(x.to(self.vae.dtype))
        mean = code["latents"] if "latents" in code else code.latent_dist.mode()
        return (mean.to(x.dtype) - self._as("mean", x)) / self._as("std", x)

    def y_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        n, (channels, *sides) = self.multiple, x_shape
        if channels != self.vae.config.in_channels or any(side % n for side in sides):
            raise InvdiffError(
                f"This prior takes images of {self.vae.config.in_channels} channels whose sides "
                f"are multiples of {n}, but this one has {' x '.join(map(str, x_shape))}; crop or "
                "pad it."
            )
        return (self.channels, *(side // self.factor for side in sides))


class Network(nn.Module):
    """F(z, time) of a pipeline's network with one text, the same for all latents.

    Subclasses know one pipeline: `part` is what it calls its network; `texts` encodes prompts.
    """

    part: ClassVar[str] = "unet"
    patch: ClassVar[int] = 1
    names: ClassVar[tuple[str, ...]] = ("embeds",)

    def __init__(self, pipe: Any, text: Text) -> None:
        super().__init__()
        self.net = getattr(pipe, self.part)
        for name, row in text.items():
            self.register_buffer(f"text_{name}", row)

    @classmethod
    def texts(cls, pipe: Any, prompt: str, negative: str | None, guidance: float) -> list[Text]:
        """Embeddings by name, (1, ...) each: of the prompt; where guidance needs it, also of the
        negative prompt."""
        two = guidance != 1
        told = pipe.encode_prompt(**cls.asked(prompt, negative, two))
        sides = [told[::2], told[1::2]] if two else [told[::2]]
        return [dict(zip(cls.names, side, strict=True)) for side in sides]

    @classmethod
    def asked(cls, prompt: str, negative: str | None, two: bool) -> dict[str, Any]:
        """Arguments of the pipeline's encode_prompt."""
        asked = dict(prompt=prompt, negative_prompt=negative, device="cpu")
        return asked | dict(num_images_per_prompt=1, do_classifier_free_guidance=two)

    def text(self, name: str, rows: int) -> Tensor:
        """The embedding called name, once for each of `rows` latents."""
        found: Tensor = getattr(self, f"text_{name}")
        return found.expand(rows, *found.shape[1:])

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """The network's output, of the shape of x (B, C, h, w); time is (B,)."""
        raise NotImplementedError


class StableDiffusion(Network):
    """StableDiffusionPipeline, versions 1 and 2 (Rombach et al. 2022, arXiv 2112.10752)."""

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        out: Tensor = self.net(x, time, encoder_hidden_states=self.text("embeds", len(x))).sample
        return out


class StableDiffusionXL(Network):
    """StableDiffusionXLPipeline (Podell et al. 2023, arXiv 2307.01952): told the image's size."""

    names = ("embeds", "pooled")

    def __init__(self, pipe: Any, text: Text) -> None:
        super().__init__(pipe, text)
        self.factor = pipe.vae_scale_factor

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h, w = (self.factor * n for n in x.shape[-2:])
        ids = torch.tensor([[h, w, 0, 0, h, w]], dtype=x.dtype, device=x.device)
        added = {"text_embeds": self.text("pooled", len(x)), "time_ids": ids.expand(len(x), -1)}
        text = self.text("embeds", len(x))
        out: Tensor = self.net(x, time, encoder_hidden_states=text, added_cond_kwargs=added).sample
        return out


class StableDiffusion3(Network):
    """StableDiffusion3Pipeline (Esser et al. 2024, arXiv 2403.03206): a flow, by a transformer."""

    part, patch, names = "transformer", 2, ("embeds", "pooled")

    @classmethod
    def asked(cls, prompt: str, negative: str | None, two: bool) -> dict[str, Any]:
        asked = super().asked(prompt, negative, two)
        return asked | dict(prompt_2=None, prompt_3=None)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        text = dict(
            encoder_hidden_states=self.text("embeds", len(x)),
            pooled_projections=self.text("pooled", len(x)),
        )
        out: Tensor = self.net(hidden_states=x, timestep=time, **text).sample
        return out


class Flux(Network):
    """FluxPipeline: a flow whose latents go in as 2 x 2 patches; guidance is an input, if any."""

    part, patch = "transformer", 2

    @classmethod
    def texts(cls, pipe: Any, prompt: str, negative: str | None, guidance: float) -> list[Text]:
        able = pipe.transformer.config.guidance_embeds or guidance == 1
        require(able, "This Flux model was trained without guidance; leave guidance out.")
        require(negative is None, "Flux knows no negative_prompt; leave it out.")
        embeds, pooled, ids = pipe.encode_prompt(prompt=prompt, prompt_2=None, device="cpu")
        told = torch.tensor([guidance], dtype=torch.float32)
        return [{"embeds": embeds, "pooled": pooled, "ids": ids[None], "guidance": told}]

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        b, c, h, w = x.shape
        patches = x.reshape(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5)
        places = torch.zeros(h // 2, w // 2, 3, dtype=x.dtype, device=x.device)
        places[..., 1] = torch.arange(h // 2, device=x.device)[:, None]
        places[..., 2] = torch.arange(w // 2, device=x.device)
        told = self.net.config.guidance_embeds
        out: Tensor = self.net(
            hidden_states=patches.reshape(b, h * w // 4, 4 * c),
            timestep=time / 1000,
            guidance=self.text("guidance", b) if told else None,
            pooled_projections=self.text("pooled", len(x)),
            encoder_hidden_states=self.text("embeds", len(x)),
            txt_ids=self.text("ids", 1)[0],
            img_ids=places.reshape(-1, 3),
        ).sample
        return out.reshape(b, h // 2, w // 2, c, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(b, c, h, w)


class Unconditional(Network):
    """LDMPipeline: latents without a text (Rombach et al. 2022, arXiv 2112.10752)."""

    @classmethod
    def texts(cls, pipe: Any, prompt: str, negative: str | None, guidance: float) -> list[Text]:
        able = guidance == 1 and not prompt and negative is None
        require(able, "This model reads no text; leave prompt, negative_prompt and guidance out.")
        return [{}]

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        out: Tensor = self.net(x, time).sample
        return out


KINDS: dict[str, type[Network]] = {
    "StableDiffusionPipeline": StableDiffusion,
    "StableDiffusionXLPipeline": StableDiffusionXL,
    "StableDiffusion3Pipeline": StableDiffusion3,
    "FluxPipeline": Flux,
    "LDMPipeline": Unconditional,
}


def load_latent(
    folder: Path,
    name: str,
    device: torch.device | str,
    dtype: torch.dtype,
    prompt: str | None,
    negative_prompt: str | None,
    guidance: float,
) -> LatentPrior:
    """The prior of a pipeline folder, one of KINDS.

    dtype: of the network and the autoencoder; an autoencoder whose configuration says that it
    overflows in float16 then runs in float32. The rest is as in `load_diffusers`.
    Raises InvdiffError, in one sentence, for whatever is missing, broken or not supported.
    """
    index = read_config(folder / "model_index.json")
    kind = str(index.get("_class_name"))
    known = ", ".join(KINDS)
    require(kind in KINDS, f"{name} is a {kind}, which is not supported; take one of {known}.")
    cls = KINDS[kind]
    auto = "vqvae" if "vqvae" in index else "vae"
    named = {k for k, v in index.items() if k in PARTS and v != [None, None]}
    for part in sorted(named | {cls.part, auto, "scheduler"}):
        found = (folder / part).is_dir()
        require(found, f"The pipeline {name} has no {part}; fetch the whole model again.")
    pipe = _pipeline(folder, name, index, dtype)
    vae, net = getattr(pipe, auto), getattr(pipe, cls.part)
    if dtype == torch.float16 and vae.config.get("force_upcast"):
        vae.float()
    for module in (vae, net):
        module.eval().requires_grad_(False)
    schedule = folder / SCHEDULES[1]
    precond, _ = training(
        import_diffusers(), False, schedule, read_config(schedule), None, None, name
    )
    channels = vae.config.latent_channels
    patched = 4 if cls is Flux else 1
    why = f"takes {net.config.in_channels} channels where its autoencoder makes {channels}"
    fits = net.config.in_channels == patched * channels
    require(fits, f"The network of {name} {why}; take a model without a second input.")
    with torch.no_grad():
        texts = cls.texts(pipe, prompt or "", negative_prompt, guidance)
    why = "negative_prompt counts with guidance alone; give guidance, or leave it out."
    require(negative_prompt is None or len(texts) == 2, why)
    parts = sorted(p for d in (cls.part, auto) for p in (folder / d).glob("*.safetensors"))
    source, limits = sha256(parts), (-float("inf"), float("inf"))
    priors = []
    uses = ((prompt or "", negative_prompt, guidance), negative_prompt)
    for text, use in zip(texts, uses, strict=False):  # the second is that of the negative prompt
        network = cls(pipe, text).to(device)
        priors.append(NetworkPrior(network, precond, (channels, None, None), limits, name))
        priors[-1]._hash = fingerprint(source, precond, use)
    inner: Prior = priors[0] if len(priors) == 1 else Guided(priors[0], priors[1], guidance)
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    told = (vae.to(device), *_scale(vae.config, channels), channels, factor, factor * cls.patch)
    shape = (vae.config.out_channels, None, None)
    return LatentPrior(inner, Decoder(*told), Encoder(*told), shape).to(device)


def _scale(config: Any, channels: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the autoencoder's latents, (1, C, 1, 1) each."""
    mean, std = config.get("latents_mean"), config.get("latents_std")
    shift = config.get("shift_factor") or 0.0
    means = torch.tensor(mean if mean and std else [shift] * channels, dtype=torch.float64)
    stds = torch.tensor(std if mean and std else [1.0] * channels, dtype=torch.float64)
    stds = stds / config.get("scaling_factor", 1.0)
    return means.reshape(1, -1, 1, 1), stds.reshape(1, -1, 1, 1)


def _pipeline(folder: Path, name: str, index: dict[str, Any], dtype: torch.dtype) -> Any:
    """The pipeline that diffusers loads, without its safety checker and what reads pictures."""
    kind = index["_class_name"]
    if kind != "LDMPipeline":
        try:
            import transformers  # noqa: F401
        except ImportError as error:
            why = "reads text, which needs transformers; run: pip install 'invdiff[latent]'"
            raise InvdiffError(f"{name} {why}.") from error
    unused = {k for k, v in index.items() if isinstance(v, list) and (k not in PARTS or not v[0])}
    options: dict[str, Any] = dict.fromkeys(unused)
    if "requires_safety_checker" in index:
        options["requires_safety_checker"] = False
    if list(folder.glob("*/*.fp16.safetensors")) and not list(folder.glob("*/*model.safetensors")):
        options["variant"] = "fp16"
    with _quiet():
        cls = getattr(import_diffusers(kind), kind)
        try:
            return cls.from_pretrained(
                folder, torch_dtype=dtype, local_files_only=True, use_safetensors=True, **options
            )
        except Exception as error:
            why = f"cannot be loaded ({type(error).__name__}): a part of it is broken or missing"
            raise InvdiffError(
                f"The pipeline {name} {why}; fetch the whole model again."
            ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and no advice from diffusers and transformers while they load."""
    names = ("diffusers.utils.logging", "transformers.utils.logging")
    bars = [sys.modules[name] for name in names if name in sys.modules]
    shown = [bar for bar in bars if bar.is_progress_bar_enabled()]
    logging.disable(logging.WARNING)
    try:
        for bar in shown:
            bar.disable_progress_bar()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
        for bar in shown:
            bar.enable_progress_bar()
