"""Cut the benchmark's photographs: 256 x 256 centre crops of held-out files, by a fixed rule.

The files are the held-out ones of the `photo` recipe (see invdiff.train.recipes) that are named
by a stock-photo number, `cid22-NUMBER` or `cid22-pexels-photo-NUMBER`, which leaves out graphics
and film stills; of these the first 12 in the order of the SHA-256 of their names.

    python benchmarks/make_data.py FOLDER_OF_PHOTOGRAPHS
"""

import hashlib
import re
import sys
from pathlib import Path

from PIL import Image

from invdiff.train.recipes import PHOTO

SIDE, COUNT = 256, 12
HERE = Path(__file__).parent / "data"


def main(folder: Path) -> None:
    """Write the crops as lossless WebP next to this script."""
    named = re.compile(r"cid22-(pexels-photo-)?\d+\.webp")
    names = [p.name for p in folder.iterdir() if named.fullmatch(p.name)]
    names = [n for n in names if PHOTO.held_out(n)]
    names.sort(key=lambda n: hashlib.sha256(n.encode()).digest())
    HERE.mkdir(exist_ok=True)
    for name in names[:COUNT]:
        image = Image.open(folder / name).convert("RGB")
        left, top = (image.width - SIDE) // 2, (image.height - SIDE) // 2
        crop = image.crop((left, top, left + SIDE, top + SIDE))
        crop.save(HERE / name, lossless=True, method=6)
        print(HERE / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
