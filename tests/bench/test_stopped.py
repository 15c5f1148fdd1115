"""A bench that is stopped, that is damaged, and whose page is written again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from invdiff.bench import grid
from invdiff.cli import INTERRUPTED, main


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("images") / "image.png"
    y, x = np.mgrid[:32, :32] / 9
    waves = np.stack([np.sin(y), np.cos(x), np.sin(x + y)], -1) * 100 + 128
    Image.fromarray(waves.astype("uint8")).save(path)
    return path


def bench(image: Path, out: Path, *args: str) -> list[str]:
    return [
        "bench", str(image), "--side", "32", "--solvers", "estimate,pocs", "--samples", "2",
        "--steps", "2", "--out", str(out), "--quiet", *args,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def whole(image, tmp_path_factory) -> Path:
    """The folder of a bench that came to its end."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert main(bench(image, out)) == 0
    return out


@pytest.fixture
def out(whole, tmp_path) -> Path:
    """A copy of its lines."""
    (tmp_path / "bench.jsonl").write_bytes((whole / "bench.jsonl").read_bytes())
    return tmp_path


def test_a_page_is_written_again(whole, out, capsys):
    assert main(["bench", "--page", "--out", str(out)]) == 0
    assert (out / "bench.md").read_bytes() == (whole / "bench.md").read_bytes()
    told = capsys.readouterr()
    assert "bench.md" in told.out and told.err == ""


def test_a_page_without_a_bench_is_one_sentence(tmp_path, capsys):
    assert main(["bench", "--page", "--out", str(tmp_path)]) == 2
    assert "There is no bench in" in capsys.readouterr().err


def test_a_last_line_that_was_cut_off_is_left_out(out):
    lines = (out / "bench.jsonl").read_text().splitlines(keepends=True)
    (out / "bench.jsonl").write_text("".join(lines[:3]) + lines[3][:40])
    assert main(["bench", "--page", "--out", str(out)]) == 0
    assert (out / "bench.md").read_text().count("\n## ") == 1


DAMAGED = {
    "no values": lambda line: line.pop("values"),
    "no psnr": lambda line: line["values"].pop("psnr"),
    "text": lambda line: line["values"].update(psnr="good"),
    "list": lambda line: line.update(values=[1, 2]),
    "no steps": lambda line: line.pop("steps"),
    "no solver": lambda line: line.pop("solver"),
    "odd error": lambda line: line.update(error={"a": 1}),
    "odd features": lambda line: line.update(features=5),
}


@pytest.mark.parametrize("how", DAMAGED)
@pytest.mark.parametrize("command", ["--page", "--resume"])
def test_a_damaged_line_is_named(how, command, image, out, capsys):
    lines = (out / "bench.jsonl").read_text().splitlines()
    broken = json.loads(lines[1])
    assert "values" in broken
    DAMAGED[how](broken)
    lines[1] = json.dumps(broken)
    (out / "bench.jsonl").write_text("\n".join(lines) + "\n")
    assert main(bench(image, out, command)) == 2
    err = capsys.readouterr().err
    assert f"Line 2 of {out / 'bench.jsonl'} is damaged" in err and err.count("\n") == 1
    (out / "bench.jsonl").write_text("\n".join(lines[:1] + lines[2:]) + "\n")
    assert main(bench(image, out, "--resume")) == 0
    again = [json.loads(line) for line in (out / "bench.jsonl").read_text().splitlines()]
    assert len(again) == len(lines) and "values" in again[-1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("5\n", "is not a file of `invdiff bench`"),
        ('{"bench": {}}\n', "The first line of"),
        ('{"bench": {"format": 1, "suite": "small"}}\n', "another version of invdiff"),
        ('{"audit": {}}\n', "is not a file of `invdiff bench`"),
        ("", "is not a file of `invdiff bench`"),
        ("\x80", "is no text"),
    ],
)
def test_what_is_no_bench_is_one_sentence(text, said, tmp_path, capsys):
    (tmp_path / "bench.jsonl").write_bytes(text.encode("latin-1"))
    assert main(["bench", "--page", "--out", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1


def test_an_interrupt_leaves_the_page_and_the_way_on(image, whole, tmp_path, monkeypatch, capsys):
    out, found = tmp_path / "out", grid.scores
    calls = []

    def stopped(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return found(*args, **kwargs)

    monkeypatch.setattr(grid, "scores", stopped)
    assert main(bench(image, out)) == INTERRUPTED
    err = capsys.readouterr().err
    done = len((out / "bench.jsonl").read_text().splitlines()) - 1
    assert f"{done} of 6 runs are done" in err and "--resume goes on" in err
    assert "## denoise, prior photo" in (out / "bench.md").read_text()
    monkeypatch.undo()
    assert main(bench(image, out, "--resume")) == 0
    kept = [
        [{k: v for k, v in json.loads(one).items() if k != "seconds"} for one in lines]
        for lines in ((p / "bench.jsonl").read_text().splitlines() for p in (out, whole))
    ]
    assert kept[0] == kept[1]


def test_a_process_that_is_stopped_leaves_the_page(image, tmp_path):
    out = tmp_path / "out"
    args = [sys.executable, "-m", "invdiff", *bench(image, out, "--solvers", "ddrm,dps")]
    args[args.index("--steps") + 1] = "1000"
    process = subprocess.Popen(args, stderr=subprocess.PIPE, text=True)
    try:
        for _ in range(1200):
            lines = out / "bench.jsonl"
            if process.poll() is not None or (lines.exists() and lines.stat().st_size):
                break
            time.sleep(0.1)
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=120)
    finally:
        process.kill()
    ended = {INTERRUPTED, -signal.SIGINT}  # CPython: the signal came within an exec
    assert process.returncode in ended and "--resume goes on" in err
    assert "Traceback" not in err and (out / "bench.md").read_text().startswith("# Bench")
