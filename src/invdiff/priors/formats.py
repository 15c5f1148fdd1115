"""What is known to load, for tables."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Format:
    """A format of published weights. read: from the file; stated: by its published layout or by
    a rule of this package; options: what settles the rest."""

    name: str
    examples: str
    read: str
    stated: str
    options: str

    def rows(self) -> list[tuple[str, str]]:
        """(label, text) of everything but the name."""
        return [
            ("  examples", self.examples),
            ("  read from the file", self.read),
            ("  not in the file", self.stated),
            ("  options", self.options),
        ]


FORMATS = (
    Format(
        "guided-diffusion (ADM)",
        "256x256_diffusion_uncond.pt, 64x64_diffusion.pt to 512x512, lsun_*.pt, ffhq_10m.pt; "
        "improved-diffusion",
        "widths, blocks, attention levels, classes, learned variance, scale and shift, resampling",
        "betas, scale of time, order of q, k, v, heads and size, of the released layout with the "
        "same shapes, attention levels and classes",
        "schedule, train_steps, prediction, rescale_timesteps, attention_order, heads, "
        "heads_upsample, head_channels, size, null_label",
    ),
    Format(
        "consistency_models",
        "edm_imagenet64_ema.pt, edm_bedroom256_ema.pt, edm_cat256_ema.pt; distilled ones (cd_*, "
        "ct_*) are refused by their name",
        "as of guided-diffusion",
        "that EDM trained it, sigma_data 0.5, heads of 64 channels, noise levels, size",
        "sigma_data, heads, head_channels, attention_order, sigma_min, sigma_max, size",
    ),
    Format(
        "DDPM, DDIM",
        "CelebA-HQ, LSUN and CIFAR-10 in PyTorch (model.ckpt, ema_*.ckpt)",
        "widths, blocks, attention levels",
        "1000 linear betas, one head; size: attention is at 16 x 16",
        "schedule, train_steps, prediction, size",
    ),
    Format(
        "score_sde",
        "NCSN++ (VE, 32 x 32 to 1024 x 1024), DDPM++, NCSN++ and DDPM (VE, VP, sub-VP; continuous "
        "and discrete times); checkpoint_*.pth",
        "widths, blocks, attention, pyramid, output skips, Fourier times, noise levels, EMA",
        "filters (1, 3, 3, 1) with a pyramid, else none; VE images on [0, 1]; attention at 16 x 16",
        "sde, beta_min, beta_max, sigma_min, sigma_max, centered, fir, skip_rescale, "
        "scale_by_sigma, train_steps, size",
    ),
    Format(
        "EDM",
        "edm-cifar10-*.pkl, edm-ffhq-64x64-*.pkl, edm-afhqv2-64x64-*.pkl, edm-imagenet-64x64-*.pkl",
        "SongUNet or DhariwalUNet, all of their shapes, classes, size, sigma_data, filters",
        "heads of 64 channels (DhariwalUNet) or one (SongUNet); of bare weights EDM's row and "
        "sigma_data 0.5",
        "sigma_data (bare weights), heads, head_channels, sigma_min, sigma_max",
    ),
    Format(
        "diffusers",
        "hf:google/ddpm-celebahq-256, or a folder",
        "everything, from config.json and scheduler_config.json",
        "DDPM's betas where there is no scheduler",
        "any_size, null_label; without a scheduler prediction, schedule and train_steps",
    ),
)
"""What is known to load, for tables; a test loads a small one of each."""
