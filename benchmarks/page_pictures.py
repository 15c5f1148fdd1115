"""The pictures of the page in docs/images, and of every tab in all its looks.

    python benchmarks/page_pictures.py [--all FOLDER]

The page is served and used by a browser: a scratched photograph is restored, solvers race on it, a
scan is reconstructed. Then docs/images/app-restore.png, app-compare.png and app-truth.png are
written, or with --all every tab in light and dark, 1100 and 360 pixels wide.
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

from page import PATIENCE, ROOT, page

TABS = ("Restore", "Scans", "Compare", "Explore", "Truth")
DOCS = {"Restore": (900, 1400), "Compare": (1280, 1400), "Truth": (1280, 760)}
"""Width, and height at most, of the pictures in docs/images."""


def choose(seen: Any, name: str, text: str) -> None:
    """Choose in a drop-down list."""
    seen.click(f"#{name} input")
    seen.click(f'ul[role=listbox] li:has-text("{text}")')


def done(seen: Any, tab: str, word: str = "Done") -> None:
    """Wait for the end of what a tab does."""
    seen.wait_for_selector(f'#{tab}-status :is(.iv-done, .iv-wrong):has-text("{word}")')


def select(seen: Any, tab: str) -> None:
    """Open a tab."""
    seen.click(f'button[role=tab]:has-text("{tab}")')


def use(seen: Any) -> None:
    """Leave something to see in every tab."""
    choose(seen, "restore-example", "scratched")
    seen.wait_for_selector('#restore-status:has-text("is ready")')
    seen.click("#restore-go")
    done(seen, "restore")
    seen.click("#restore-look")
    select(seen, "Compare")
    seen.fill("#compare-cost input", "8")
    seen.click("#compare-go")
    done(seen, "compare")
    select(seen, "Explore")
    done(seen, "explore", "directions")
    select(seen, "Scans")
    choose(seen, "scans-example", "chest")
    seen.wait_for_selector('#scans-status:has-text("is ready")')
    seen.click('.tabitem:visible button:has-text("How it is run")')
    choose(seen, "scans-want", "samples")
    seen.fill("#scans-samples input", "2")
    seen.click("#scans-go")
    done(seen, "scans")


def shot(seen: Any, tab: str, width: int, most: int, file: Path) -> None:
    """A picture of a tab, from its top."""
    seen.set_viewport_size({"width": width, "height": 900})
    seen.wait_for_timeout(500)  # tabs that do not fit hide, others come back
    select(seen, tab)
    seen.mouse.move(0, 0)
    seen.wait_for_timeout(1000)  # plots take their new width
    content = seen.screenshot(full_page=True, animations="disabled")
    with Image.open(io.BytesIO(content)) as image:
        whole = image.convert("RGB")
        whole.crop((0, 0, whole.width, min(whole.height, most))).save(file, optimize=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="Pictures of the page.")
    parser.add_argument("--all", type=Path, help="folder for every tab in all its looks")
    given = parser.parse_args()
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as place, page(Path(place)) as (url, _):
        with sync_playwright() as started:
            browser = started.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
            )
            seen = browser.new_page(viewport={"width": 1100, "height": 900})
            seen.set_default_timeout(PATIENCE)
            seen.goto(url)
            seen.wait_for_selector("#restore-go")
            use(seen)
            if given.all is None:
                for tab, size in DOCS.items():
                    shot(seen, tab, *size, ROOT / "docs" / "images" / f"app-{tab.lower()}.png")
            else:
                given.all.mkdir(parents=True, exist_ok=True)
                for scheme in ("light", "dark"):
                    seen.emulate_media(color_scheme=scheme)
                    for tab in TABS:
                        for width in (1100, 360):
                            name = f"{tab.lower()}-{scheme}-{width}.png"
                            shot(seen, tab, width, 6000, given.all / name)
            browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
