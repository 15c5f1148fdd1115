"""What `invdiff app` is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from invdiff.core import InvdiffError
from invdiff.core.option import check_ranges, option
from invdiff.restoration.job import torch_device


@dataclass(frozen=True, kw_only=True)
class AppOptions:
    """Where the page is served, to whom, and within which limits."""

    host: str = option(
        "address that is listened on; 127.0.0.1 is reached from this machine alone, 0.0.0.0 from "
        "all that reach it",
        "127.0.0.1",
    )
    port: int = option("that is listened on; 0 takes a free one", 7860, min=0, max=65535)
    auth: str | None = option(
        "USER:PASSWORD, or a file with one such line for each user; all others are turned away",
        None,
    )
    root_path: str = option("path under which a proxy serves the page, as /invdiff", "")
    device: str = option(
        "auto, cpu or cuda, or several as cuda:0,cuda:1; each does one job at a time", "auto"
    )
    upload: int = option("megabytes of a file that is uploaded, at most", 256, min=1)
    megapixels: int = option("of a picture that is uploaded, at most", 100, min=1, max=100)
    line: int = option("jobs that may wait for their turn", 16, min=0)
    browser: bool = option("open the page in a browser", False)

    def __post_init__(self) -> None:
        check_ranges(self)
        if not self.host.strip():
            raise InvdiffError("--host needs an address, as 127.0.0.1.")
        if self.root_path and not self.root_path.startswith(("/", "http://", "https://")):
            raise InvdiffError(f"--root-path begins with /, found {self.root_path}.")

    @property
    def devices(self) -> list[str]:
        """Names of the devices, each of which gets a worker. Raises InvdiffError for others."""
        if self.device == "auto" and torch.cuda.is_available():
            return [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        return list(dict.fromkeys(torch_device(name.strip()) for name in self.device.split(",")))

    @property
    def users(self) -> list[tuple[str, str]] | None:
        """(user, password) of all that may come; None where everybody may.

        Raises InvdiffError for what is neither USER:PASSWORD nor a file of such lines.
        """
        if self.auth is None:
            return None
        path = Path(self.auth)
        lines = path.read_text("utf-8").splitlines() if path.is_file() else [self.auth]
        found = [line.strip().partition(":") for line in lines if line.strip()]
        if not found or not all(user and word for user, _, word in found):
            raise InvdiffError("--auth is USER:PASSWORD, or a file with such lines.")
        return [(user, word) for user, _, word in found]
