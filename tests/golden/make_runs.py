"""How tests/golden/runs was made: one small run of every task, as `invdiff restore` wrote it.

    python tests/golden/make_runs.py FOLDER [TASK ...]

The folders are kept as they are: every later version reads them, and repeats their samples. They
are never made again; a new format gets folders beside them.
"""

import json
import os
import shlex
import sys
import tempfile
from pathlib import Path

from PIL import Image

from invdiff.cli import main

PHOTO = Path(__file__).parents[2] / "examples" / "alpacas-small.png"
SIDE = 32
TASKS: dict[str, tuple[str, list[str], list[str]]] = {
    # picture, options of `degrade`, and of `restore` beside those that degrade tells
    "inpaint": ("photo.png", ["--mask", "box:8,8,12,12"], []),
    "super-resolution": ("photo.png", ["--scale", "4", "--noise", "0.01"], []),
    "deblur": ("photo.png", ["--kernel", "gaussian:1.5", "--noise", "0.02"], []),
    "denoise": ("photo.png", ["--noise", "0.1"], []),
    "colorize": ("photo.png", ["--noise", "0.01"], []),
    "demosaic": ("photo.png", ["--pattern", "GBRG"], []),
    "jpeg": ("photo.png", ["--quality", "20"], []),
    "enlarge-jpeg": ("photo.png", ["--scale", "2", "--quality", "40"], []),
    "hdr": ("photo.png", ["--gain", "2"], []),
    "low-light": ("photo.png", ["--peak", "30"], []),
    "phase-retrieval": ("grey.png", [], ["--prior", "fashion28"]),
    "compressed-sensing": ("photo.png", ["--ratio", "0.3"], []),
    "mri": ("grey.png", ["--accel", "4"], []),
    "ct": ("grey.png", ["--views", "20"], []),
    "low-dose-ct": ("grey.png", ["--noise", "40"], []),
}


def make(name: str, folder: Path) -> None:
    """Measure a small picture, restore it by three steps with two samples, and keep the run."""
    photo, told, more = TASKS[name]
    with Image.open(PHOTO) as image:
        small = image.convert("RGB").crop((30, 30, 30 + SIDE, 30 + SIDE))
    small = small.resize((28, 28)) if name == "phase-retrieval" else small
    with tempfile.TemporaryDirectory() as work:
        os.chdir(work)
        small.convert("L" if photo == "grey.png" else "RGB").save(photo)
        assert main(["degrade", name, photo, *told, "--seed", "1", "--out", "made"]) == 0
        command = shlex.split(json.loads(Path("made/degrade.json").read_text())["restore"])[1:]
        short = ["--steps", "3", "--samples", "2", "--seed", "5", "--quiet"]
        assert main([*command, *more, *short, "--out", str(folder / name)]) == 0
    for picture in (folder / name).glob("*.png"):  # figures are not part of what is repeated
        if picture.stem in ("overview", "uncertainty"):
            picture.unlink()


if __name__ == "__main__":
    for name in sys.argv[2:] or TASKS:
        make(name, Path(sys.argv[1]).resolve())
