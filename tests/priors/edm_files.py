"""Pickles as EDM writes them: each module carries the source of its class, which runs on loading.

NVIDIA's persistence decorator replaces an object by a call of one function with a dictionary: the
source, the name of the class, and the object's attributes.
"""

from __future__ import annotations

import contextlib
import pickle
import sys
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import nn

SOURCE = "import pathlib\npathlib.Path({canary!r}).touch()\n"


@contextlib.contextmanager
def persistence(canary: Path) -> Iterator[ModuleType]:
    """A module torch_utils.persistence whose function runs the source, as the real one does."""

    def _reconstruct_persistent_obj(meta: dict) -> object:
        exec(meta["module_src"], {})
        return meta

    package, module = ModuleType("torch_utils"), ModuleType("torch_utils.persistence")
    _reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
    _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
    module._reconstruct_persistent_obj = _reconstruct_persistent_obj
    package.persistence = module
    sys.modules |= {"torch_utils": package, "torch_utils.persistence": module}
    try:
        yield module
    finally:
        del sys.modules["torch_utils"], sys.modules["torch_utils.persistence"]


class _Persistent:
    def __init__(self, function: object, meta: dict) -> None:
        self.function, self.meta = function, meta

    def __reduce__(self) -> tuple:
        return self.function, (self.meta,), None


def edm_pickle(
    net: nn.Module, path: Path, canary: Path, kind: str = "EDMPrecond", **attributes: object
) -> Path:
    """{ema: kind(model=net)}, with the attributes that EDM's networks have, numpy's among them."""
    source = SOURCE.format(canary=str(canary))
    with persistence(canary) as module:

        def wrap(m: nn.Module, name: str, **more: object) -> object:
            inner = OrderedDict((k, wrap(v, type(v).__name__)) for k, v in m._modules.items())
            if isinstance(m, nn.ModuleDict):
                m._modules = inner
                return m
            state = {
                "training": False,
                "_parameters": OrderedDict(m._parameters),
                "_buffers": OrderedDict(m._buffers),
                "_non_persistent_buffers_set": set(),
                "_modules": inner,
                "_init_args": (),
                "_init_kwargs": {"init_weight": np.sqrt(0.2), "mult": [1, 2]},
                "skip_scale": np.sqrt(0.5),
                **more,
            }
            meta = dict(type="class", version=6, module_src=source, class_name=name, state=state)
            return _Persistent(module._reconstruct_persistent_obj, meta)

        outer = nn.Module()
        outer.model = net
        told = {"img_resolution": 32, "sigma_data": 0.5, "use_fp16": True} | attributes
        ema = wrap(outer, kind, **told)
        path.write_bytes(pickle.dumps({"ema": ema, "dataset_kwargs": {"use_labels": False}}))
    return path


def tree(tensors: dict[str, torch.Tensor]) -> nn.Module:
    """Modules that hold these tensors under their names, as buffers or parameters."""
    root = nn.Module()
    for name, value in tensors.items():
        *path, leaf = name.split(".")
        at = root
        for part in path:
            if part not in at._modules:
                at.add_module(part, nn.ModuleDict() if part in ("enc", "dec") else nn.Module())
            at = at._modules[part]
        if leaf in ("resample_filter", "freqs"):
            at.register_buffer(leaf, value)
        else:
            at.register_parameter(leaf, nn.Parameter(value, requires_grad=False))
    return root


def runs_its_source(path: Path, canary: Path) -> bool:
    """Whether the pickle runs code when it is loaded without care."""
    with persistence(canary):
        pickle.loads(path.read_bytes())
    found = canary.exists()
    canary.unlink(missing_ok=True)
    return found


def tensors_equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
