"""Checksums of what is written to files, so that what was changed or cut is told apart."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

LENGTH = 32
"""Hexadecimal digits: 128 bits of SHA-256."""


def of_tensor(tensor: Tensor) -> str:
    """Of the type, the shape and the bytes of a tensor."""
    tensor = tensor.detach().cpu().contiguous()
    found = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)} ".encode())
    found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()[:LENGTH]


def of_tensors(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Of each tensor, by its name."""
    return {name: of_tensor(tensors[name]) for name in sorted(tensors)}


def of_json(value: Any) -> str:
    """Of JSON values, whatever the order of keys and the spaces."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:LENGTH]
