"""The frozen networks of tests/golden/networks: their weights, their files, and their outputs."""

from __future__ import annotations

import functools
import json
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from edm_files import edm_pickle, tree
from torch import Tensor

FOLDER = Path(__file__).parents[1] / "golden" / "networks"
CASES: dict[str, dict[str, Any]] = {
    case["name"]: case for case in json.loads((FOLDER / "index.json").read_text())["cases"]
}
SDES = {"vesde": "ve", "vpsde": "vp", "subvpsde": "subvp"}


def arrays(name: str) -> Any:
    return np.load(FOLDER / f"{name}.npz")


def layout(name: str) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and kind of each tensor, in the official order."""
    z = arrays(name)
    found = zip(z["names"], z["shapes"], z["kinds"], strict=True)
    return {str(k): (tuple(int(n) for n in s if n >= 0), str(kind)) for k, s, kind in found}


def weight(name: str, shape: tuple[int, ...], kind: str) -> Tensor:
    """A tensor of random weights, which depend on its name alone."""
    key = name.replace("module.", "").encode()
    r = np.random.default_rng(zlib.crc32(key)).standard_normal(shape)
    if kind == "frequencies":
        r = 16 * r
    elif len(shape) > 1:
        r = r / math.sqrt(math.prod(shape[1:]))
    else:
        r = 1 + 0.2 * r if name.endswith("weight") else 0.2 * r
    return torch.from_numpy(r.astype(np.float32))


@functools.cache
def state(name: str) -> dict[str, Tensor]:
    """The state dict of a case with outputs."""
    z, found = arrays(name), {}
    for key, (shape, kind) in layout(name).items():
        if f"buffer:{key}" in z.files:
            found[key] = torch.from_numpy(z[f"buffer:{key}"])
        else:
            found[key] = weight(key, shape, kind)
    return found


def shapes(name: str) -> dict[str, Tensor]:
    """The state dict of a case as names and shapes: on the meta device, without numbers."""
    return {key: torch.empty(shape, device="meta") for key, (shape, _) in layout(name).items()}


def options(name: str) -> dict[str, Any]:
    """What the user of the file must say, its class among it."""
    case = CASES[name]
    label = case["prior"].get("label")
    told = dict(case["options"]) if label is None else {"label": label} | case["options"]
    if not case["outputs"] and case["family"] == "score_sde_pytorch":
        training, model = case["config"]["training"], case["config"]["model"]
        kind = SDES[training["sde"]]
        told["sde"] = kind if training["continuous"] else f"{kind}-discrete"
        if kind == "ve":  # the buffer of levels has no numbers here
            told["sigma_max"] = float(model["sigma_max"])
    return told


def side(name: str) -> int:
    """The side of the images that the network was trained on."""
    config = CASES[name]["config"]
    told = [config.get(k) for k in ("image_size", "img_resolution", "resolution")]
    return next(filter(None, told), None) or config["data"]["image_size"]


def parameters(name: str) -> int:
    """How many numbers of a case are trained and used: an image is sampled without augmentation."""
    kinds = layout(name).items()
    return sum(
        math.prod(shape)
        for key, (shape, kind) in kinds
        if kind == "parameter" and not key.endswith("map_augment.weight")
    )


def written(name: str, folder: Path, form: str | None = None) -> Path:
    """The file of a case, as its project saves it; form: another form of file than the case's."""
    case, tensors, path = CASES[name], state(name), folder / f"{name}.pt"
    form = form or case["file"]
    if form in ("edm", "edm_pickle"):
        prefix = "model."
        net = tree({k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)})
        kind, side = case["prior"]["precond"], case["config"]["img_resolution"]
        path = path.with_suffix(".pkl")
        return edm_pickle(net, path, folder / "canary", kind, img_resolution=side)
    if form == "score_sde":
        torch.save(score_sde(tensors, layout(name)), path)
    elif form == "ddim_list":
        now = {f"module.{k}": v + 1 for k, v in tensors.items()}
        torch.save([now, {"state": {}, "param_groups": []}, 3, 17, tensors], path)
    else:
        half = form == "state_dict_fp16"
        torch.save({k: v.half() if half else v for k, v in tensors.items()}, path)
    return path


def score_sde(tensors: dict[str, Tensor], kinds: dict[str, tuple[Any, str]]) -> dict[str, Any]:
    """A checkpoint whose live weights are others than its averages."""
    trained = [k for k in tensors if kinds[k][1] == "parameter"]
    live = {
        f"module.{k.removeprefix('module.')}": v + 1 if k in trained else v
        for k, v in tensors.items()
    }
    ema = {"decay": 0.999, "num_updates": 7, "shadow_params": [tensors[k] for k in trained]}
    return {"optimizer": {"state": {}}, "model": live, "ema": ema, "step": 7}
