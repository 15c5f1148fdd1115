"""EDM's pickles without running them: their classes stay plain bags of attributes.

A file of NVlabs/edm holds the source of its classes and runs it when it is unpickled. Here the one
function that does so is replaced, and all but tensors, numbers and containers of them is refused.
"""

from __future__ import annotations

import collections
import io
import pickle
import pickletools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.priors.published import archives


class Bag:
    """An object of the file: its attributes, and for EDM's own classes class_name."""

    def __init__(self, *args: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        state = state if isinstance(state, dict) else {}
        self.__dict__.update({str(k): v for k, v in state.items()})


class Dict(dict):  # type: ignore[type-arg]
    """A dict whose extra state is left out, for those with attributes."""

    def __setstate__(self, state: Any) -> None:
        pass


def read_pickle(data: bytes, name: str) -> Any:
    """The object of a pickle, of which no code is run. name: of the file, for messages.

    Raises InvdiffError for anything but tensors, numbers, containers and EDM's classes.
    """
    _check_operations(data, name)
    try:
        return _Reader(io.BytesIO(data)).load()
    except InvdiffError:
        raise
    except Exception as error:
        raise InvdiffError(
            f"{name} is no pickle of EDM that can be read ({type(error).__name__}); fetch it again."
        ) from error


def network(found: Any, name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors by their names in the network, and the plain attributes of its preconditioner."""
    net = found.get("ema", found.get("net")) if isinstance(found, dict) else found
    modules = vars(net).get("_modules") if isinstance(net, Bag) else None
    inner = modules.get("model") if isinstance(modules, dict) else None
    if not isinstance(net, Bag) or not isinstance(inner, Bag):
        raise InvdiffError(f"{name} is a pickle without a network of EDM (ema, with its model).")
    plain = {k: v for k, v in vars(net).items() if isinstance(v, str | bool | int | float)}
    tensors: dict[str, Tensor] = {}
    _collect(inner, "", tensors, 0)
    return tensors, plain


def _collect(module: Bag, prefix: str, into: dict[str, Tensor], depth: int) -> None:
    if depth > 20:
        raise InvdiffError("The network of this pickle is nested more than 20 levels deep.")
    for kind in ("_parameters", "_buffers"):
        for key, value in (vars(module).get(kind) or {}).items():
            if isinstance(value, Tensor):
                into[f"{prefix}{key}"] = value
    for key, value in (vars(module).get("_modules") or {}).items():
        if isinstance(value, Bag):
            _collect(value, f"{prefix}{key}.", into, depth + 1)


def _persistent(meta: Any) -> Bag:
    """In place of the function that would run the source that meta holds."""
    made = Bag()
    made.__setstate__(meta.get("state"))
    made.__dict__["class_name"] = str(meta.get("class_name"))
    return made


def _storage(data: bytes) -> Any:
    """A tensor's memory, which is a file of torch inside of the pickle."""
    if data[:4] == b"PK\x03\x04":
        archives.records(io.BytesIO(data), len(data), "An archive inside of the pickle")
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _parameter(data: Tensor, *rest: Any) -> Tensor:
    return data


def _reconstruct(cls: Any, base: Any, state: Any) -> Bag:
    """Of old protocols: an object without its attributes, which follow."""
    if not (isinstance(cls, type) and issubclass(cls, Bag)):
        raise InvdiffError("The pickle makes an object of a class that is not allowed.")
    return Bag()


def _scalar(dtype: np.dtype[Any], data: bytes) -> float:
    """A number of numpy, such as the skip_scale of a block."""
    return float(np.frombuffer(data, dtype)[0])


def _encode(text: str, encoding: str) -> bytes:
    """Bytes as protocol 2 writes them."""
    return text.encode("latin1")


ALLOWED: dict[tuple[str, str], Any] = {
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): _persistent,
    ("torch.storage", "_load_from_bytes"): _storage,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_tensor"): torch._utils._rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch", "device"): torch.device,
    ("torch", "Size"): torch.Size,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("dnnlib.util", "EasyDict"): Dict,
    ("dnnlib", "EasyDict"): Dict,
    ("numpy", "dtype"): np.dtype,
    ("copyreg", "_reconstructor"): _reconstruct,
    ("builtins", "object"): object,
    ("builtins", "set"): set,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("_codecs", "encode"): _encode,
}
DTYPES = {str(d).removeprefix("torch."): d for d in (torch.float16, torch.float32, torch.float64)}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        module = "builtins" if module == "__builtin__" else module  # as Python 2 called it
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        if module == "training.networks" or module.startswith("torch.nn.modules."):
            return Bag  # whatever the class does, a bag does not
        if (module, name) not in ALLOWED:
            raise InvdiffError(
                f"The pickle asks for {module}.{name}, which is not among the few harmless names "
                "that are allowed; only networks of EDM are read."
            )
        return ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise InvdiffError("The pickle refers to objects outside of it; it is no file of EDM.")


def _check_operations(data: bytes, name: str) -> None:
    """InvdiffError for a pickle whose instructions are cut short, or number more than its bytes.

    A number of a memory slot beyond the length of the file would reserve memory for all of them.
    """
    try:
        for operation, argument, _ in pickletools.genops(io.BytesIO(data)):
            if "PUT" in operation.name and int(argument or 0) > len(data):
                raise ValueError("memo")
    except Exception as error:
        raise InvdiffError(
            f"{name} is no whole pickle ({type(error).__name__}); fetch the file again."
        ) from error
