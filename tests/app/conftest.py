"""A page that a process of its own serves, in which no socket leads elsewhere, and a browser."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from serving import Served, serve

PACKAGES = [name for name in ("gradio", "playwright") if find_spec(name) is None]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
WITHOUT = [*PACKAGES, *([] if CHROMIUM else ["chromium (apt-get install chromium)"])]


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """`invdiff app` on a free port."""
    with serve(tmp_path_factory.mktemp("page"), "--upload", "40") as page:
        yield page


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A headless browser."""
    if WITHOUT:
        pytest.skip(
            f"The page is NOT tested in a browser, for there is no {', no '.join(WITHOUT)}."
        )
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        told = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        browser = started.chromium.launch(executable_path=CHROMIUM, args=told)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small one."""
    path = tmp_path_factory.mktemp("photo") / "alpacas.png"
    with Image.open(Path(__file__).parents[2] / "examples" / "alpacas-small.png") as image:
        image.convert("RGB").crop((20, 20, 52, 44)).save(path)
    return path
