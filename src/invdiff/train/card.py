"""The model card: what a prior was trained on, how long, and how good it is."""

from __future__ import annotations

from typing import Any

from invdiff.priors.photo_net import PhotoNet, PhotoNetConfig


def write_card(facts: dict[str, Any]) -> str:
    """Markdown text of the card, from the facts that training recorded."""
    recipe = facts["recipe"]
    net = recipe["net"]
    reach = PhotoNet(PhotoNetConfig(**net)).reach
    rule = (
        f": files whose name starts with {' or '.join(recipe['hold_out'])} and whose name's "
        f"SHA-256 is divisible by {recipe['hold_out_one_in']}"
        if recipe["hold_out"]
        else ""
    )
    lines = [
        f"# Prior `{recipe['name']}`",
        "",
        "A noise-conditioned denoiser E[x0 | x0 + sigma eps] for RGB photographs of any size, on",
        "[-1, 1], with the preconditioning of Karras et al. 2022 (EDM).",
        "",
        f"- Network: convolutional U-Net behind a pixel-unshuffle, widths {tuple(net['widths'])}, "
        f"blocks {tuple(net['blocks'])} down and {tuple(net['up_blocks'])} up, no normalisation, "
        f"no attention; {facts['parameters'] / 1e6:.2f} M parameters, stored in float16.",
        f"- Data: {facts['training_images']} training images. {recipe['attribution']}"
        " Weights trained on CC-BY-SA images are offered under CC-BY-SA-4.0.",
        f"- Held out: {facts['validation_images']} images{rule}.",
        f"- Recipe: {recipe['steps']} steps of {recipe['batch']} patches of {recipe['patch']} x "
        f"{recipe['patch']} pixels, {round(100 * recipe['halves'])} % of them from images at half "
        f"size; AdamW, rate {recipe['lr']:g} falling to 0 over the last "
        f"{round(100 * recipe['cooldown'])} %, mean of weights {recipe['ema']}; sigma "
        f"log-normal ({recipe['p_mean']}, {recipe['p_std']}), {round(100 * recipe['tail'])} % "
        f"log-uniform on [{recipe['sigma_min']}, {recipe['sigma_max']}].",
        f"- Hardware and time: {facts['hardware']}, {facts['hours']:.2f} hours, "
        f"torch {facts['torch']}.",
        "",
    ]
    if "note" in facts:
        lines[-1:] = [f"- Note: {facts['note']}", ""]
    if "psnr" in facts:
        sigmas = list(facts["psnr"])
        lines += [
            "PSNR in dB of the denoised held-out photographs (centre crops of 256 x 256), by the",
            "noise level on [-1, 1], peak 2:",
            "",
            "| sigma | " + " | ".join(sigmas) + " |",
            "|---|" + "---|" * len(sigmas),
            "| PSNR | " + " | ".join(f"{facts['psnr'][s]:.2f}" for s in sigmas) + " |",
            "",
        ]
    lines += [
        f"It knows texture, edges and local structure within {reach} pixels; it does not know",
        "what a face or a house is, and cannot invent what a large hole held.",
        "",
        f"Trained by `invdiff train {recipe['name']} --data FOLDER`.",
    ]
    return "\n".join(lines) + "\n"
