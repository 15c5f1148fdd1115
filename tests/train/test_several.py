"""Training by several processes: two, on the CPU, started by torchrun, with gloo."""

import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.distributed.run import parse_args

from invdiff.commands.train import TrainOptions
from invdiff.core import InvdiffError
from invdiff.core.option import flag
from invdiff.train.drawings import read_log
from invdiff.train.fit import fit
from invdiff.train.processes import Processes, launched
from invdiff.train.trainer import Trainer

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
from several import QUIET, RECIPE  # noqa: E402


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images for training and one that is held out."""
    folder = tmp_path_factory.mktemp("photos")
    sides = {"a": (33, 48), "b": (40, 32), "c": (64, 50), "held-1": (16, 16)}
    for i, (name, (h, w)) in enumerate(sides.items()):
        pixels = np.random.default_rng(i).integers(0, 256, (h, w, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


def torchrun(*args: str) -> subprocess.CompletedProcess[str]:
    """Two processes of a script or module on this machine."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    return subprocess.run(
        [sys.executable, *launcher, *args], capture_output=True, text=True, timeout=400,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def two(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes left, see several.py."""
    out = tmp_path_factory.mktemp("two")
    pixels = np.random.default_rng(0).integers(0, 256, (1004, 28, 28), dtype=np.uint8)
    np.savez(out / "images.npz", train=pixels)
    done = torchrun(str(HERE / "several.py"), str(photos), str(out / "images.npz"), str(out))
    assert done.returncode == 0, done.stderr[-3000:]
    return out


def told(out: Path) -> list[dict[str, str]]:
    """What each of the processes said."""
    files = (out / f"rank{rank}.txt" for rank in (0, 1))
    return [dict(x.split(" ", 1) for x in f.read_text().splitlines()) for f in files]  # type: ignore[misc]


def state(folder: Path) -> dict[str, Any]:
    """A checkpoint."""
    found: dict[str, Any] = torch.load(folder / "checkpoint.pt", weights_only=True)
    return found


def test_all_processes_end_with_the_same_bits(two: Path) -> None:
    """Weights, their mean, the moments and the gradient's norm; one process writes them."""
    first, second = told(two)
    assert first["whole"] == second["whole"]
    assert {p.name for p in (two / "whole").iterdir()} == {
        "checkpoint.pt", "log.jsonl", "tiny.safetensors", "tiny.json", "tiny.md",
        "tiny.spectrum.json", "tiny-curve.png", "tiny-samples.png",
    }  # fmt: skip
    assert [row["step"] for row in read_log(two / "whole" / "log.jsonl")] == [1, 2, 3, 4]
    assert "2 processes" in (two / "whole" / "tiny.md").read_text()


def test_an_interrupt_of_one_ends_both_and_they_go_on(two: Path) -> None:
    """Both stop after the step in which one was told to, and end with the bits of a whole run."""
    first, second = told(two)
    assert first["interrupted"] == second["interrupted"] == "2"
    assert first["resumed"] == second["resumed"] == first["whole"]


@pytest.fixture(scope="module")
def alone(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process left after the first step."""
    out = tmp_path_factory.mktemp("alone")
    assert fit(RECIPE, photos, out, steps=1, **QUIET)
    return out


def test_the_gradient_is_that_of_the_whole_batch(two: Path, alone: Path) -> None:
    """One step of two processes and of one: the first moment is (1 - beta1) times the gradient.

    Both are sums of the same float32 terms in another order: at most 4 x 16 x 16 x 3 for a bias,
    and some fifty more layers, so that they agree to a few thousand roundings.
    """
    ours, theirs = (state(f)["optimizer"]["state"] for f in (alone, two / "first"))
    moments = [[s[i]["exp_avg"] for i in sorted(s)] for s in (ours, theirs)]
    scale = max(float(m.abs().max()) for m in moments[0])
    assert scale > 1e-5
    for a, b in zip(*moments, strict=True):
        assert float((a - b).abs().max()) < 4000 * torch.finfo(torch.float32).eps * scale


def test_the_log_tells_the_loss_of_whole_batches(two: Path, alone: Path) -> None:
    """The first loss is that of a single process, whose batch is the same."""
    own, shared = (read_log(f / "log.jsonl")[0] for f in (alone, two / "first"))
    assert shared["loss"] == pytest.approx(own["loss"], rel=1e-5)
    half = Trainer(RECIPE, "cpu", False, mixed=False, processes=Processes(1, 2))
    assert half.processes.rows == slice(1, None, 2)


def test_a_single_process_goes_on_where_two_stopped(two: Path, photos: Path) -> None:
    """A checkpoint does not depend on how many processes there are."""
    folder = two / "first"
    before = state(folder)["step"]
    assert before == 1 and fit(RECIPE, photos, folder, steps=2, resume=True, **QUIET)
    assert state(folder)["step"] == 2


def test_what_does_not_fit_is_told_by_all(two: Path) -> None:
    for one in told(two):
        assert one["odd"] == (
            "A batch of 3 cannot be shared equally by 2 processes; give a --batch that is a "
            "multiple of 2."
        )
        assert one["seed"].startswith("The 2 processes begin with different weights; give them")
    assert not (two / "odd").exists()


def test_the_command_line_speaks_once(two: Path) -> None:
    first, second = ((two / f"said{rank}.txt").read_text().splitlines() for rank in (0, 1))
    lines = [line for line in first if line]
    assert len(lines) == 1 and "torchrun --nproc_per_node 2 -m -- invdiff train" in lines[0]
    assert second == []
    assert "--resume" in lines[0] and (two / "command" / "checkpoint.pt").exists()


def test_the_launcher_takes_no_option_of_ours() -> None:
    """--start is the beginning of two of its own: only what follows -- is left alone."""
    ours = ["train", "photo", *(part for f in fields(TrainOptions) for part in (flag(f.name), "1"))]
    told = parse_args(["--nproc_per_node", "2", "-m", "--", "invdiff", *ours])
    assert "--start" in ours and told.training_script_args[-len(ours) :] == ours


# Alone


def test_alone_nothing_is_shared() -> None:
    p, x = Processes(), torch.arange(3.0)
    assert p.main and x[p.rows].data_ptr() == x.data_ptr() and len(x[p.rows]) == 3
    p.average_([x])
    assert p.any(True, False) == [True, False] and x.tolist() == [0, 1, 2]
    p.check_equal(3, "steps")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"RANK": None}, "WORLD_SIZE is 2, but RANK is not set; start several processes with"),
        ({"device": "cuda:1"}, "2 processes cannot share the device cuda:1"),
        ({"device": "cuda"}, r"This machine has 0 GPUs for at least 2 processes"),
    ],
)
def test_a_launcher_that_does_not_fit(
    change: dict[str, str | None], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    given = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1",
             "MASTER_PORT": "1", "device": "cpu"} | change  # fmt: skip
    device = given.pop("device")
    for name, value in given.items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name, raising=False)
    with pytest.raises(InvdiffError, match=message) as error:
        launched(str(device))
    assert "\n" not in str(error.value)
