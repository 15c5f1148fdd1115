"""The model card: what a prior was trained on, how long, and how good it is."""

from __future__ import annotations

from textwrap import fill
from typing import Any

from invdiff.priors.photo_net import PhotoNet, PhotoNetConfig
from invdiff.train.drawings import SAMPLE_STEPS

SYMMETRIES = {"all": ", in all eight orientations", "mirror": ", mirrored at random", "none": ""}


def write_card(facts: dict[str, Any]) -> str:
    """Markdown text of the card, from the facts that training recorded."""
    recipe = facts["recipe"]
    net = recipe["net"]
    reach = PhotoNet(PhotoNetConfig(**net)).reach
    about = (
        f"A noise-conditioned denoiser E[x0 | x0 + sigma eps] for {recipe['about']}. Its "
        "preconditioning is that of Karras et al. 2022 (EDM)."
    )
    limits = (
        f"It knows texture, edges and structure within {reach} pixels (an output pixel depends on "
        f"no other). {recipe['limits']}"
    )
    lines = [
        f"# Prior `{recipe['name']}`",
        "",
        fill(about, 98, break_on_hyphens=False),
        "",
        f"- Network: convolutional U-Net behind a pixel-unshuffle, widths {tuple(net['widths'])}, "
        f"blocks {tuple(net['blocks'])} down and {tuple(net['up_blocks'])} up, no normalisation, "
        f"no attention; {facts['parameters'] / 1e6:.2f} M parameters, stored in float16.",
        f"- Data: {facts['training_images']} training images. {recipe['attribution']}",
        f"- Held out: {facts['validation_images']} images{_rule(recipe)}. Of identical images only "
        "the first is used.",
        f"- Recipe: {recipe['steps']} steps of {recipe['batch']} {_patches(recipe)}; AdamW, rate "
        f"{recipe['lr']:g} falling to 0 over the last {round(100 * recipe['cooldown'])} %, mean of "
        f"weights {recipe['ema']}; sigma log-normal ({recipe['p_mean']}, {recipe['p_std']}), "
        f"{round(100 * recipe['tail'])} % log-uniform on [{recipe['sigma_min']}, "
        f"{recipe['sigma_max']}].",
        f"- Hardware and time: {facts['hardware']}, {facts['hours']:.2f} hours, "
        f"torch {facts['torch']}.",
        *([_origin(facts["started_from"])] if "started_from" in facts else []),
        *([f"- Note: {facts['note']}"] if "note" in facts else []),
        "",
        *(_quality(facts) if "psnr" in facts else []),
        fill(limits.strip(), 98, break_on_hyphens=False),
        "",
        *(_pictures(facts) if "pictures" in facts else []),
        f"Trained by `invdiff train {recipe['name']} --data PATH`.",
    ]
    return "\n".join(lines) + "\n"


def _origin(earlier: dict[str, Any]) -> str:
    """The training whose weights this one began with."""
    r = earlier.get("recipe", {})
    net = r.get("net", {})
    if not net:
        return "- Started from weights of unknown origin."
    before = f" {_origin(earlier['started_from'])[2:]}" if "started_from" in earlier else ""
    note = f" ({earlier['note'].rstrip('.')})" if "note" in earlier else ""
    return (
        f"- Started from an earlier training: blocks {tuple(net['blocks'])} and "
        f"{tuple(net['up_blocks'])}, {r['steps']} steps of {r['batch']} patches of {r['patch']} x "
        f"{r['patch']}, rate {r['lr']:g}, {earlier['hours']:.2f} hours on "
        f"{earlier['hardware']}{note}; added blocks began as the identity.{before}"
    )


def _rule(recipe: dict[str, Any]) -> str:
    """How the held-out images were chosen."""
    if recipe["hold_out_last"]:
        return f": the last {recipe['hold_out_last']} of the array"
    if not recipe["hold_out"]:
        return ""
    prefixes = [p for p in recipe["hold_out"] if p]
    start = f" starts with {' or '.join(prefixes)} and whose name's" if prefixes else "'s"
    return f": files whose name{start} SHA-256 is divisible by {recipe['hold_out_one_in']}"


def _patches(recipe: dict[str, Any]) -> str:
    """What a batch is made of."""
    text = (
        f"patches of {recipe['patch']} x {recipe['patch']} pixels{SYMMETRIES[recipe['symmetries']]}"
    )
    if recipe["halves"]:
        text += f", {round(100 * recipe['halves'])} % of them from images at half size"
    if len(recipe["scales"]) > 1:
        factors = ", ".join(str(s) for s in recipe["scales"])
        text += f", reduced by a factor that is drawn from {factors} for each batch"
    return text + (f", made into {recipe['become']}" if recipe["become"] else "")


def _quality(facts: dict[str, Any]) -> list[str]:
    """The table of PSNR on held-out images."""
    rows = {"PSNR": facts["psnr"], **facts.get("others", {})}
    sigmas, side = list(facts["psnr"]), facts["recipe"]["validation"]
    what = (
        f"PSNR in dB of denoised held-out images (centre crops of {side} x {side}, at most "
        f"{facts['recipe']['validated']}), by the noise level on [-1, 1], peak 2. The Wiener "
        "filter has the power spectrum of the training images:"
    )
    return [
        fill(what, 98, break_on_hyphens=False),
        "",
        "| sigma | " + " | ".join(sigmas) + " |",
        "|---|" + "---|" * len(sigmas),
        *(
            f"| {label} | " + " | ".join(f"{psnr[s]:.2f}" for s in sigmas) + " |"
            for label, psnr in rows.items()
        ),
        "",
    ]


def _pictures(facts: dict[str, Any]) -> list[str]:
    """The curve and the samples, which lie beside the card."""
    pictures, lines = facts["pictures"], list[str]()
    curve = "Loss of the training batches, over the steps."
    if "curve_images" in facts:
        curve = (
            f"Over the steps: loss of the training batches, and loss and PSNR of "
            f"{facts['curve_images']} held-out images by the mean of the weights. The noise of the "
            "held-out images is always the same."
        )
    if "curve" in pictures:
        lines += [fill(curve, 98, break_on_hyphens=False), "", f"![loss]({pictures['curve']})", ""]
    if "samples" in pictures:
        lines += [
            f"Samples without a measurement ({SAMPLE_STEPS} steps), the first ones drawn:",
            "",
            f"![samples]({pictures['samples']})",
            "",
        ]
    else:
        lines += [fill(f"No samples: {facts['no_samples']}", 98, break_on_hyphens=False), ""]
    return lines
