"""Loading without the progress bars and the advice of other libraries."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no advice from diffusers and transformers while they load."""
    names = ("diffusers.utils.logging", "transformers.utils.logging")
    bars = [sys.modules[name] for name in names if name in sys.modules]
    shown = [bar for bar in bars if bar.is_progress_bar_enabled()]
    logging.disable(logging.WARNING)
    try:
        for bar in shown:
            bar.disable_progress_bar()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
        for bar in shown:
            bar.enable_progress_bar()
