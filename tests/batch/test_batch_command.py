"""`invdiff batch` as users type it, on small pictures."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from invdiff.batch.place import Place
from invdiff.batch.report import all_lines
from invdiff.cli import main

OPTIONS = ["--steps", "2", "--samples", "2", "--quiet", "--shard-size", "2"]


def picture(path: Path, seed: int, size: tuple[int, int] = (16, 20)) -> None:
    """A small picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def contents(out: Path) -> dict[str, bytes]:
    """Files of results and lines of the manifest, without times."""
    found = {}
    for path in sorted((out / "items").rglob("*")):
        if path.is_file() and path.name != "item.json":
            found[str(path.relative_to(out))] = path.read_bytes()
    for line in all_lines(Place(out)):
        told = {k: v for k, v in line.items() if k != "seconds"}
        found[line["id"]] = json.dumps(told, sort_keys=True).encode()
    return found


def test_the_same_bytes_by_whoever(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                   monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """In this process, by two others, and by two ranks; alone, an item is the same too.

    A mask lies beside each picture. One picture is broken, and its sentence is that of restore.
    """
    monkeypatch.chdir(tmp_path)
    for i in range(3):
        picture(Path(f"in/{i % 2}/p{i}.png"), i, (16, 20 + 4 * (i % 2)))
        mask = np.zeros((16, 20 + 4 * (i % 2)), np.uint8)
        mask[4:8, 4 + i : 9] = 255
        Image.fromarray(mask).save(f"in/{i % 2}/p{i}-mask.png")
    Path("in/0/bad.png").write_bytes(Path("in/0/p0.png").read_bytes()[:300])
    Path("in/0/bad-mask.png").write_bytes(Path("in/0/p0-mask.png").read_bytes())
    command = ["batch", "inpaint", "in", "--mask", "{stem}-mask.png", *OPTIONS]
    assert main([*command, "--out", "here", "--workers", "0"]) == 3
    assert "3 of 4 items restored, 1 failed" in capsys.readouterr().out
    right = contents(Path("here"))
    written = ("estimate.png", "mean.png", "sample-1.png", "sample-2.png", "std.npy")
    assert {f"items/0/p0.png/{name}" for name in written} <= set(right)
    assert main([*command, "--out", "two", "--workers", "2"]) == 3
    assert contents(Path("two")) == right
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("WORLD_SIZE", "2")
        assert main([*command, "--out", "ranks", "--workers", "0"]) == 0
    monkeypatch.delenv("RANK")
    assert contents(Path("ranks")) == right
    capsys.readouterr()
    assert main(["batch", "--status", "ranks"]) == 3
    assert "4 of 4 done, 1 of them failed" in capsys.readouterr().out
    bad = str(tmp_path / "in/0/bad.png")
    assert main(["restore", "inpaint", bad, "--mask", "in/0/bad-mask.png"]) == 2
    assert capsys.readouterr().err == f"invdiff: {json.loads(right['0/bad.png'])['error']}\n"
    picture(Path("in/0/bad.png"), 9)
    assert main([*command, "--out", "here", "--workers", "0", "--retry-failed"]) == 0


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--steps", "0"], "at least 1 step"),
        (["--noise", "loud"], "--noise expects a number"),
        (["--scale", "2"], "--scale does not belong to denoise"),
        (["--samples", "0"], "--samples is at least 1"),
        (["--solver", "nobody"], "There is no solver called 'nobody'"),
        (["--rank", "0"], "--rank and --world belong together"),
        (["--rank", "2", "--world", "2"], "--rank is below --world"),
        (["--workers", "-1"], "--workers is from 0"),
        (["--prior", "nothing.safetensors", "--workers", "0"], "nothing.safetensors"),
        (["--cluster", "local"], r"pip install 'invdiff\[cluster\]'"),
        (["--resume"], "no option called '--resume'"),
    ],
)
def test_what_is_wrong_in_any_case_is_said_once(
    more: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Before any item is tried."""
    monkeypatch.setitem(sys.modules, "ray", None)
    picture(tmp_path / "in/a.png", 0)
    out = str(tmp_path / "out")
    code = main(["batch", "denoise", str(tmp_path / "in"), "--noise", "0.1", "--out", out, *more,
                 "--quiet"])  # fmt: skip
    error = capsys.readouterr().err
    assert code == 2 and error.startswith("invdiff: ") and re.search(said, error), error
    assert not list((tmp_path / "out").glob("items/*"))


def test_a_truth_tells_the_psnr(tmp_path: Path) -> None:
    """Of a picture whose truth is of another size the item fails."""
    picture(tmp_path / "in/a.png", 0)
    picture(tmp_path / "in/a-truth.png", 0)
    picture(tmp_path / "in/b.png", 0)
    picture(tmp_path / "in/b-truth.png", 0, (8, 8))
    out = tmp_path / "out"
    command = ["batch", "denoise", str(tmp_path / "in"), "--noise", "0.02", "--out", str(out)]
    assert main([*command, *OPTIONS, "--workers", "0", "--truth", "{stem}-truth.png"]) == 3
    found = {line["id"]: line for line in all_lines(Place(out))}
    estimate = np.asarray(Image.open(out / "items/a.png/estimate.png"), float) / 255
    clean = np.asarray(Image.open(tmp_path / "in/a.png"), float) / 255
    psnr = -10 * np.log10(((estimate - clean) ** 2).mean())
    assert abs(found["a.png"]["psnr"]["estimate"] - psnr) < 0.3  # rounding of the file to 1/255
    assert "b-truth.png is of 8 x 8 pixels, but the result of 20 x 16" in found["b.png"]["error"]
