"""Networks of Karras et al. 2022 (arXiv 2206.00364), in the names that their files use.

DhariwalUNet is the network of guided-diffusion and becomes a UNet2DModel; SongUNet is that of
score_sde and becomes ours. The input for augmentation is 0 when an image is sampled, so its weights
are left out; the same holds for the label that stands for no class: a row of zeros.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.priors.published import edm_dhariwal, edm_song
from invdiff.priors.published.base import Converted, Options, Weights, presumed
from invdiff.priors.published.edm_names import Layout

MARK = "map_layer0.weight"
MOST_LEVELS = 100_000
"""Of an iDDPM table; the released networks have 1000."""


def convert(tensors: dict[str, Tensor], options: Options, pickled: Mapping[str, Any]) -> Converted:
    """pickled: class_name, sigma_data and the like, as the file's own objects have them; empty for
    bare weights, whose sigma_data is then 0.5 unless the option says otherwise."""
    w = Weights(tensors, "EDM")
    w.skip("resample_filter")
    if w.has("map_augment.weight"):
        w.take("map_augment.weight")
    dhariwal = w.has("out_conv.weight")
    layout = Layout(w)
    null = None
    if w.has("map_label.weight"):
        null = w.take("map_label.weight", None, None).shape[1]
    made = (edm_dhariwal if dhariwal else edm_song).convert(w, layout, options)
    w.finish()
    trained = _trained(options, pickled)
    channels = made["config"].get("in_channels", made["config"].get("channels"))
    side = options.size or layout.sides[0]
    values = {k: trained.get(k) for k in ("sigma_min", "sigma_max")}
    values["sigma_data"] = None if "sigma_data" in pickled else trained.get("sigma_data")
    values["head_channels"] = edm_dhariwal.HEAD_WIDTH if dhariwal and not options.heads else None
    return Converted(
        "edm", **made, trained=trained, shape=(channels, side, side), classes=null or 0, null=null,
        presumed=presumed(values, options),
    )  # fmt: skip


def _trained(options: Options, pickled: Mapping[str, Any]) -> dict[str, Any]:
    """The row that belongs to the class of the file, such as EDMPrecond."""
    kind = pickled.get("class_name", "EDMPrecond")
    if kind == "EDMPrecond":
        sigma_data = options.sigma_data or float(pickled.get("sigma_data", 0.5))
        low, high = options.sigma_min or 0.002, options.sigma_max or 80.0
        return {"row": "edm", "sigma_data": sigma_data, "sigma_min": low, "sigma_max": high}
    if kind == "VPPrecond":
        low, rise = float(pickled.get("beta_min", 0.1)), float(pickled.get("beta_d", 19.9))
        scale = float(pickled.get("M", 1000)) - 1
        return {"row": "eps_sde", "scale": scale, "beta0": low, "beta1": low + rise}
    if kind == "VEPrecond":
        low, high = options.sigma_min or 0.02, options.sigma_max or 100.0
        return {"row": "edm_ve", "sigma_min": low, "sigma_max": high}
    if kind == "iDDPMPrecond":
        levels = int(pickled.get("M", 1000))
        if not 1 < levels <= MOST_LEVELS:
            raise InvdiffError(f"The file claims {levels} noise levels; fetch it again.")
        c1, c2 = float(pickled.get("C_1", 0.001)), float(pickled.get("C_2", 0.008))
        return {"row": "iddpm", "levels": levels, "c1": c1, "c2": c2}
    raise InvdiffError(
        f"The file holds a {kind}, which is not supported; take one of EDMPrecond, VPPrecond, "
        "VEPrecond or iDDPMPrecond."
    )
