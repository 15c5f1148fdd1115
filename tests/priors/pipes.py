"""Tiny pipelines of latents with random weights: latents of 4 x 8 x 8, images of 3 x 16 x 16."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiTPipeline,
    DiTTransformer2DModel,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    LDMPipeline,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    UNet2DModel,
    VQModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

WORDS = ["a", "photo", "of", "cat", "dog"]
SCALED = dict(
    beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False,
    set_alpha_to_one=False, steps_offset=1,
)  # fmt: skip


def clip_tokenizer(folder: Path) -> CLIPTokenizer:
    """Letters, and the words of WORDS, which merges build from the left."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    vocab, merges = [*letters, *(f"{c}</w>" for c in letters)], []
    for word in WORDS:
        whole = word[0]
        for i, letter in enumerate(word[1:], 2):
            part = letter + ("</w>" if i == len(word) else "")
            if (whole, part) not in merges:
                merges.append((whole, part))
                vocab.append(whole + part)
            whole += part
    vocab += ["<|startoftext|>", "<|endoftext|>"]
    ids = {word: i for i, word in enumerate(vocab)}
    return CLIPTokenizer(vocab=ids, merges=merges, model_max_length=16)


def text_config(size: int = 8, tokens: int = 80) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=tokens, hidden_size=size, intermediate_size=16, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=16, projection_dim=size,
        bos_token_id=68, eos_token_id=69, pad_token_id=69,
    )  # fmt: skip


def vae(channels: int = 4, **changes: Any) -> AutoencoderKL:
    config = dict(
        block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4, sample_size=16,
        latent_channels=channels, down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip
    return AutoencoderKL(**(config | changes))


def unet(**changes: Any) -> UNet2DConditionModel:
    config = dict(
        sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        cross_attention_dim=8, attention_head_dim=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    return UNet2DConditionModel(**(config | changes))


def stable_diffusion(folder: Path, prediction: str = "epsilon") -> StableDiffusionPipeline:
    return StableDiffusionPipeline(
        vae(), CLIPTextModel(text_config()), clip_tokenizer(folder), unet(),
        DDIMScheduler(prediction_type=prediction, **SCALED), None, None,
        requires_safety_checker=False,
    )  # fmt: skip


def xl(folder: Path) -> StableDiffusionXLPipeline:
    net = unet(
        cross_attention_dim=16, addition_embed_type="text_time", addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=32,
    )  # fmt: skip
    tokenizers = clip_tokenizer(folder), clip_tokenizer(folder)
    encoders = CLIPTextModel(text_config()), CLIPTextModelWithProjection(text_config())
    return StableDiffusionXLPipeline(vae(), *encoders, *tokenizers, net, DDIMScheduler(**SCALED))


def sd3(folder: Path) -> StableDiffusion3Pipeline:
    net = SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, out_channels=4, num_layers=1,
        attention_head_dim=4, num_attention_heads=2, joint_attention_dim=16,
        caption_projection_dim=8, pooled_projection_dim=16, pos_embed_max_size=16,
    )  # fmt: skip
    encoders = [CLIPTextModelWithProjection(text_config()) for _ in range(2)]
    tokenizers = clip_tokenizer(folder), clip_tokenizer(folder)
    coder = vae(shift_factor=0.06, scaling_factor=1.5)
    flow = FlowMatchEulerDiscreteScheduler(shift=3.0)
    one, two = zip(encoders, tokenizers, strict=True)
    return StableDiffusion3Pipeline(net, flow, coder, *one, *two, None, None)


def flux(folder: Path, guidance_embeds: bool = True) -> FluxPipeline:
    net = FluxTransformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=8, pooled_projection_dim=8,
        guidance_embeds=guidance_embeds, axes_dims_rope=(4, 4, 8),
    )  # fmt: skip
    t5 = T5Config(vocab_size=60, d_model=8, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)] + [(f"▁{w}", -1.0) for w in WORDS]
    return FluxPipeline(
        FlowMatchEulerDiscreteScheduler(shift=3.0), vae(shift_factor=0.1),
        CLIPTextModel(text_config()), clip_tokenizer(folder), T5EncoderModel(t5),
        T5Tokenizer(vocab=pieces, extra_ids=0), net,
    )  # fmt: skip


def unconditional(folder: Path) -> LDMPipeline:
    coder = VQModel(
        block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        num_vq_embeddings=32,
    )  # fmt: skip
    net = UNet2DModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(8, 16),
        layers_per_block=1, norm_num_groups=4, down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    return LDMPipeline(coder, net, DDIMScheduler(**SCALED))


def dit(folder: Path) -> DiTPipeline:
    """Of 10 classes, with a learned variance."""
    net = DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=4, in_channels=4, out_channels=8, num_layers=1,
        sample_size=8, patch_size=2, num_embeds_ada_norm=10, norm_num_groups=2,
    )  # fmt: skip
    return DiTPipeline(net, vae(), DDIMScheduler(), {0: "cat", 1: "dog"})


MAKERS: dict[str, Callable[[Path], Any]] = {
    "sd": stable_diffusion,
    "sd-v": lambda folder: stable_diffusion(folder, "v_prediction"),
    "xl": xl,
    "sd3": sd3,
    "flux": flux,
    "ldm": unconditional,
}


def saved(kind: str, folder: Path) -> Path:
    """A pipeline folder, one of MAKERS or "dit", with random weights, the same each time."""
    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        pipe = (MAKERS | {"dit": dit})[kind](folder)
        for part in pipe.components.values():
            if isinstance(part, torch.nn.Module):
                for p in part.parameters():
                    p.add_(0.1 * torch.randn(p.shape))
    pipe.save_pretrained(folder)
    return folder
