"""Networks of diffusers that work on latents, each told one text or class: F(z, time)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from invdiff.priors.schedules import require

Text = dict[str, Tensor]


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


class Unprompted(Network):
    """LDMPipeline: latents without a text (Rombach et al. 2022, arXiv 2112.10752)."""

    @classmethod
    def texts(cls, pipe: Any, prompt: str, negative: str | None, guidance: float) -> list[Text]:
        able = guidance == 1 and not prompt and negative is None
        require(able, "This model reads no text; leave prompt, negative_prompt and guidance out.")
        return [{}]

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        out: Tensor = self.net(x, time).sample
        return out


class DiT(Network):
    """DiTPipeline: latents of a class (Peebles and Xie 2023, arXiv 2212.09748)."""

    part, patch = "transformer", 2

    @classmethod
    def labels(cls, pipe: Any, label: int | None, null: int | None, guidance: float) -> list[Text]:
        """The class and, where guidance needs it, the label after the last one, which stands for
        no class unless `null` does."""
        count = pipe.transformer.config.num_embeds_ada_norm
        why = f"This model is class-conditional; give label, a whole number from 0 to {count - 1}"
        require(label in range(count + 1), f"{why}.")
        why = "null_label counts with guidance alone; give guidance, or leave it out."
        require(null is None or guidance != 1, why)
        null = count if null is None else null
        require(null in range(count + 1), f"null_label is a whole number from 0 to {count}.")
        told = [label] if guidance == 1 else [label, null]
        return [{"label": torch.tensor([k])} for k in told]

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        out: Tensor = self.net(x, timestep=time, class_labels=self.text("label", len(x))).sample
        return out


KINDS: dict[str, type[Network]] = {
    "StableDiffusionPipeline": StableDiffusion,
    "StableDiffusionXLPipeline": StableDiffusionXL,
    "StableDiffusion3Pipeline": StableDiffusion3,
    "FluxPipeline": Flux,
    "LDMPipeline": Unprompted,
    "DiTPipeline": DiT,
}
