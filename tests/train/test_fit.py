"""Training: the loss, what is written, and that an interrupted run ends where a whole one does."""

import json
import math
import signal
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor

from invdiff.cli import main
from invdiff.core import InvdiffError
from invdiff.priors.photo import PhotoPrior, load_weights
from invdiff.priors.photo_net import PhotoNet, PhotoNetConfig, coordinates
from invdiff.train.data import PatchSampler
from invdiff.train.drawings import read_log
from invdiff.train.fit import fit
from invdiff.train.recipe import Recipe
from invdiff.train.recipes import RECIPES
from invdiff.train.trainer import Trainer
from invdiff.train.validation import VALIDATION_SIGMAS

RECIPE = Recipe(
    name="tiny",
    net=PhotoNetConfig(widths=(8, 12, 16), blocks=(1, 1, 1), up_blocks=(1, 1), embedding=16),
    attribution="Made by a test.",
    hold_out=("held-",),
    hold_out_one_in=1,
    patch=16,
    batch=2,
    steps=6,
    warmup=2,
    seed=3,
    validation=64,
)
QUIET: dict[str, Any] = {"device": "cpu", "progress": False}
PICTURES = {"tiny-curve.png", "tiny-samples.png"}
WRITTEN = {
    "checkpoint.pt",
    "log.jsonl",
    "tiny.safetensors",
    "tiny.json",
    "tiny.md",
    "tiny.spectrum.json",
    *PICTURES,
}


def save(path: Path, *shape: int) -> None:
    """A picture of random colours."""
    pixels = np.random.default_rng(len(path.name)).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images for training and one, large enough for a PSNR, that is held out."""
    folder = tmp_path_factory.mktemp("photos")
    for name, h, w in (("a", 33, 48), ("bb", 40, 32), ("ccc", 64, 50), ("held-1", 64, 65)):
        save(folder / f"{name}.png", h, w, 3)
    return folder


@pytest.fixture(scope="module")
def whole(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an uninterrupted run wrote."""
    out = tmp_path_factory.mktemp("whole")
    assert fit(RECIPE, photos, out / "out", **QUIET)
    return out / "out"


def weights(out: Path) -> dict[str, Tensor]:
    """All state that training reached, but the clock."""
    state = torch.load(out / "checkpoint.pt", weights_only=True)
    found = {f"{part}.{k}": v for part in ("net", "ema") for k, v in state[part].items()}
    for i, moments in state["optimizer"]["state"].items():
        found |= {f"{i}.{k}": v for k, v in moments.items()}
    with safe_open(out / "tiny.safetensors", framework="pt") as file:
        found |= {f"file.{k}": file.get_tensor(k) for k in file.keys()}
    return found | {"norm": state["norm"], "step": torch.tensor(state["step"])}


def same(a: Path, b: Path) -> bool:
    """Whether two runs have reached the same state, bit for bit."""
    x, y = weights(a), weights(b)
    return x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x)


# What is written


def test_a_run_writes_weights_log_and_card(whole: Path, photos: Path) -> None:
    assert {p.name for p in whole.iterdir()} == WRITTEN
    rows = [json.loads(line) for line in (whole / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert all(math.isfinite(row["loss"]) and row["held_out_loss"] > 0 for row in rows)
    facts = json.loads((whole / "tiny.json").read_text())
    with safe_open(whole / "tiny.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["facts"]) == facts
    assert facts["recipe"] == json.loads(json.dumps(asdict(RECIPE)))
    assert (facts["training_images"], facts["validation_images"]) == (3, 1)
    assert list(facts["psnr"]) == [f"{s:g}" for s in VALIDATION_SIGMAS]
    net = PhotoNet(RECIPE.net)
    assert facts["parameters"] == sum(p.numel() for p in net.parameters())
    prior = load_weights(whole / "tiny.safetensors")
    assert prior.name == "tiny" and prior.net.config == RECIPE.net
    card = (whole / "tiny.md").read_text()
    for text in ("# Prior `tiny`", "Made by a test.", "starts with held-", f"{net.reach} pixels"):
        assert text in card
    assert f"| {facts['psnr']['0.1']:.2f} |" in card


@pytest.mark.parametrize("size", [None, 63])
def test_without_large_validation_images_there_is_no_psnr(
    size: int | None, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "photos").mkdir()
    save(tmp_path / "photos" / "a.png", 32, 32, 3)
    if size:
        save(tmp_path / "photos" / "held-1.png", size, size, 3)
    assert fit(RECIPE, tmp_path / "photos", tmp_path / "out", steps=1, **QUIET)
    facts = json.loads((tmp_path / "out" / "tiny.json").read_text())
    assert "psnr" not in facts and facts["validation_images"] == bool(size)
    assert "PSNR" not in (tmp_path / "out" / "tiny.md").read_text()


def test_steps_batch_and_patch_override_the_recipe(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes, advance = [], Trainer.advance
    monkeypatch.setattr(
        Trainer, "advance", lambda run, x0: (shapes.append(tuple(x0.shape)), advance(run, x0))[1]
    )
    assert fit(RECIPE, photos, tmp_path / "out", steps=2, batch=3, patch=8, **QUIET)
    assert shapes == [(3, 3, 8, 8)] * 2
    recipe = json.loads((tmp_path / "out" / "tiny.json").read_text())["recipe"]
    assert (recipe["steps"], recipe["batch"], recipe["patch"]) == (2, 3, 8)


SMALL = replace(
    RECIPE, halves=0.0, hold_out=(), mode="L", hold_out_last=2, steps=2, patch=16, validation=16
)
KINDS = {
    "complex": replace(SMALL, net=replace(RECIPE.net, channels=2), become="complex images"),
    "clips": replace(
        SMALL, net=replace(RECIPE.net, channels=8), become="moving clips", shape=(1, 8, 32, 32),
        patch=28, validation=28, batch=4,
    ),
    "scales": replace(
        SMALL, net=replace(RECIPE.net, channels=1, located=True), scales=(1, 2),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_image_can_be_trained_on(kind: str, tmp_path: Path) -> None:
    """From an array; the prior knows its shape, the card its rule and the Wiener filter."""
    recipe, data = KINDS[kind], tmp_path / "images.npz"
    pixels = np.random.default_rng(0).integers(0, 256, (6, 32, 32), dtype=np.uint8)
    np.savez(data, greys=pixels, other=pixels[:1])
    assert fit(recipe, data, tmp_path / "out", key="greys", **QUIET)
    prior = load_weights(tmp_path / "out" / "tiny.safetensors")
    assert prior.shape == (recipe.shape or (recipe.net.channels, None, None))
    x = torch.randn(2, *(side or 32 for side in prior.shape))
    assert prior.denoise(x, 0.5).shape == x.shape
    facts = json.loads((tmp_path / "out" / "tiny.json").read_text())
    assert (facts["training_images"], facts["validation_images"]) == (4, 2)
    card = (tmp_path / "out" / "tiny.md").read_text()
    assert "the last 2 of the array" in card and "| Wiener filter |" in card
    assert ("| PSNR at 8 x 8 |" in card) == (kind == "scales")


def test_a_located_network_is_trained_with_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it sees in training is what the prior shows it: the scaled image, then coordinates."""
    run, seen = Trainer(KINDS["scales"], "cpu", False, mixed=False), list[Tensor]()
    forward = run.forward
    monkeypatch.setattr(run, "forward", lambda x, c: (seen.append(x), forward(x, c))[1])
    run.advance(torch.zeros(2, 1, 16, 24))
    assert seen[0].shape == (2, 5, 16, 24)
    torch.testing.assert_close(seen[0][:, 1:], coordinates(16, 24).expand(2, -1, -1, -1))


# The end of an interrupted run is the end of a whole one


def at_step(step: int, action: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Do something when the patches of a step are cut."""
    cut = PatchSampler.__call__

    def called(self: PatchSampler, now: int) -> Tensor:
        if now == step:
            action()
        return cut(self, now)

    monkeypatch.setattr(PatchSampler, "__call__", called)


def interrupt() -> None:
    raise KeyboardInterrupt


def crash() -> None:
    raise RuntimeError("the power went")


def test_repeated_runs_are_bit_identical(whole: Path, photos: Path, tmp_path: Path) -> None:
    torch.manual_seed(99)
    assert fit(RECIPE, photos, tmp_path / "out", **QUIET)
    assert same(whole, tmp_path / "out")
    assert fit(replace(RECIPE, seed=4), photos, tmp_path / "other", **QUIET)
    assert not same(whole, tmp_path / "other")


def test_a_run_that_is_out_of_time_goes_on(whole: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert not fit(RECIPE, photos, out, minutes=0, **QUIET)
    assert {p.name for p in out.iterdir()} == {"checkpoint.pt", "log.jsonl"}
    assert fit(RECIPE, photos, out, resume=True, **QUIET)
    assert same(whole, out)


def test_an_interrupted_run_goes_on(
    whole: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        at_step(3, interrupt, patch)
        fit(RECIPE, photos, out, **QUIET)
    assert {p.name for p in out.iterdir()} == {"checkpoint.pt", "log.jsonl"}
    assert torch.load(out / "checkpoint.pt", weights_only=True)["step"] == 3
    assert fit(RECIPE, photos, out, resume=True, **QUIET)
    assert same(whole, out)


def test_a_run_that_died_goes_on_from_its_last_checkpoint(
    whole: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="power"):
        at_step(4, crash, patch)
        fit(RECIPE, photos, out, save_every=0.0, **QUIET)
    assert torch.load(out / "checkpoint.pt", weights_only=True)["step"] == 4
    assert fit(RECIPE, photos, out, resume=True, **QUIET)
    assert same(whole, out)


def signal_amid_an_update(number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal arrives in the third step, when the weights have moved and their mean has not."""
    move, count = torch.optim.AdamW.step, iter(range(99))

    def moved(self: torch.optim.AdamW) -> None:
        move(self)
        if next(count) == 2:
            signal.raise_signal(number)

    monkeypatch.setattr(torch.optim.AdamW, "step", moved)


def test_an_interrupt_waits_for_the_end_of_an_update(
    whole: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may ignore it
    out, handlers = tmp_path / "out", [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        signal_amid_an_update(signal.SIGINT, patch)
        fit(RECIPE, photos, out, **QUIET)
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    signal.signal(signal.SIGINT, before)
    assert torch.load(out / "checkpoint.pt", weights_only=True)["step"] == 3
    assert fit(RECIPE, photos, out, resume=True, **QUIET)
    assert same(whole, out)


def test_a_complete_run_that_is_resumed_stays_as_it_is(whole: Path, photos: Path) -> None:
    before = weights(whole)
    assert fit(RECIPE, photos, whole, resume=True, **QUIET)
    assert all(torch.equal(v, before[k]) for k, v in weights(whole).items())


def test_the_card_shows_what_the_log_and_the_network_allow(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log without held-out images, none at all, and a network whose samples diverge."""
    assert fit(RECIPE, photos, tmp_path, **QUIET)
    card = tmp_path / "tiny.md"
    assert "PSNR of 1 held-out images" in card.read_text()
    assert all(f"({name})" in card.read_text() for name in PICTURES)
    (tmp_path / "log.jsonl").write_text('{"step": 6, "loss": 0.5, "seconds": 1.0}\n')
    assert fit(RECIPE, photos, tmp_path, resume=True, **QUIET)
    assert "Loss of the training batches, over the steps." in card.read_text()

    def diverge(*args: object) -> None:
        raise InvdiffError("It diverged.")

    (tmp_path / "log.jsonl").unlink()
    monkeypatch.setattr("invdiff.train.fit.draw_samples", diverge)
    assert fit(RECIPE, photos, tmp_path, resume=True, **QUIET)
    assert "No samples: It diverged." in card.read_text() and "![" not in card.read_text()


# Refusals


def test_a_checkpoint_is_not_overwritten(whole: Path, photos: Path) -> None:
    before = (whole / "checkpoint.pt").read_bytes()
    with pytest.raises(InvdiffError, match=r"checkpoint\.pt exists; continue it with --resume"):
        fit(RECIPE, photos, whole, **QUIET)
    assert (whole / "checkpoint.pt").read_bytes() == before


class Evil:
    """Makes a file when it is unpickled without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("kind", ["text", "code", "another network"])
def test_a_checkpoint_of_something_else(
    kind: str, whole: Path, photos: Path, tmp_path: Path
) -> None:
    recipe = RECIPE
    if kind == "text":
        (tmp_path / "checkpoint.pt").write_text("no checkpoint")
    elif kind == "code":
        torch.save({"net": Evil(tmp_path / "ran")}, tmp_path / "checkpoint.pt")
    else:
        (tmp_path / "checkpoint.pt").write_bytes((whole / "checkpoint.pt").read_bytes())
        recipe = replace(RECIPE, net=replace(RECIPE.net, widths=(8, 16, 16)))
    with pytest.raises(InvdiffError, match=r"is no checkpoint of the recipe tiny \(\w+\)") as error:
        fit(recipe, photos, tmp_path, resume=True, **QUIET)
    assert "\n" not in str(error.value) and not (tmp_path / "ran").exists()


def test_a_patch_that_does_not_fit_the_network(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(InvdiffError, match=r"Patches of 12 pixels .* a multiple of 8\.$"):
        fit(RECIPE, photos, tmp_path / "out", patch=12, **QUIET)
    assert not (tmp_path / "out").exists()


def test_a_folder_without_images_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(InvdiffError, match="holds no training image"):
        fit(RECIPE, tmp_path, tmp_path / "out", **QUIET)
    assert not (tmp_path / "out").exists()


def test_a_loss_that_is_not_finite_is_reported(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(InvdiffError, match=r"The loss is (nan|inf) at step [234]; lower"):
        fit(replace(RECIPE, lr=1e30), photos, tmp_path, steps=4, **QUIET)
    assert not (tmp_path / "tiny.safetensors").exists()


# The loss


def test_an_untrained_network_has_the_loss_of_table_1() -> None:
    """F = 0 leaves the mean of target^2, which the EDM coefficients make 1 at every sigma.

    That is for data with the mean square sigma_data^2, such as pixels d s with signs s: the target
    is u s + v z with u^2 + v^2 = 1, and its square has the variance 4 v^2 - 2 v^4 <= 2.
    """
    d = 0.7
    run = Trainer(replace(RECIPE, net=replace(RECIPE.net, sigma_data=d)), "cpu", False, mixed=False)
    signs = torch.randn(32, 3, 16, 16, generator=torch.Generator().manual_seed(0)).sign()
    loss = float(run.advance(d * signs))
    assert abs(loss - 1) < 4 * math.sqrt(2 / signs.numel())


def test_noise_levels_follow_the_recipe() -> None:
    """Log-normal, but for a share of log-uniform ones; the mean within four standard errors."""
    recipe = replace(RECIPE, tail=0.25, p_mean=-1.0, p_std=1.1, sigma_min=0.002, sigma_max=160.0)
    run = Trainer(recipe, "cpu", False)
    n, lo, hi = 20_000, math.log(0.002), math.log(160.0)
    logs = np.log(run.sigmas(n))
    assert lo - 1e-6 <= logs.min() and logs.max() <= hi + 1e-6
    mean = 0.75 * -1.0 + 0.25 * (lo + hi) / 2
    square = 0.75 * (1.1**2 + 1.0) + 0.25 * (lo**2 + lo * hi + hi**2) / 3
    assert abs(logs.mean() - mean) < 4 * math.sqrt((square - mean**2) / n)
    run.step = 1
    assert not np.array_equal(np.log(run.sigmas(n)), logs)


def test_the_rate_rises_stays_and_falls_to_nothing() -> None:
    run = Trainer(replace(RECIPE, steps=100, warmup=10, cooldown=0.3, lr=2.0), "cpu", False)
    rates = []
    for run.step in range(101):
        rates.append(run.rate())
    assert rates[:10] == pytest.approx([0.2 * (i + 1) for i in range(10)])
    assert rates[9:71] == [2.0] * 62
    assert rates[70:] == pytest.approx([2.0 * (30 - i) / 30 for i in range(31)])


def test_what_is_easy_to_learn_is_learnt(tmp_path: Path) -> None:
    """Uniformly grey images: the loss falls, and the prior beats the untrained one at every sigma.

    Untrained, F = 0 and D = c_skip x.
    """
    (tmp_path / "photos").mkdir()
    for name, side in (("a", 32), ("held-1", 64)):
        Image.new("RGB", (side, side), (128, 128, 128)).save(tmp_path / "photos" / f"{name}.png")
    recipe = replace(RECIPE, batch=4, lr=3e-3, warmup=5)
    fit(recipe, tmp_path / "photos", tmp_path / "short", steps=20, mixed=False, **QUIET)
    fit(recipe, tmp_path / "photos", tmp_path / "long", steps=120, mixed=False, **QUIET)
    short, long = (read_log(tmp_path / out / "log.jsonl") for out in ("short", "long"))
    assert len(short) == len(long) == 20
    assert sum(row["loss"] for row in long) < sum(row["loss"] for row in short)
    assert long[-1]["held_out_loss"] < short[-1]["held_out_loss"] < short[0]["held_out_loss"]
    untrained = PhotoPrior(PhotoNet(recipe.net))
    grey = torch.full((1, 3, 64, 64), 128 / 127.5 - 1)
    before = untrained.psnr_by_sigma(grey, VALIDATION_SIGMAS)
    after = json.loads((tmp_path / "long" / "tiny.json").read_text())["psnr"]
    assert all(after[s] > before[s] for s in before), (before, after)


# The command line


def test_train_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "photo", "--help"]) == 0
    shown = capsys.readouterr().out
    for option in ("--data", "--out", "--steps", "--minutes", "--resume"):
        assert option in shown


@pytest.fixture
def command(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """`invdiff train` of the tiny recipe."""
    monkeypatch.setitem(RECIPES, "tiny", RECIPE)
    folders = ["--data", str(photos), "--out", str(tmp_path / "out")]
    return ["train", "tiny", *folders, "--device", "cpu", "--quiet"]


def test_train_from_the_command_line(
    command: list[str], whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command) == 0
    assert "tiny.safetensors" in capsys.readouterr().out
    assert same(whole, tmp_path / "out")
    assert main(command) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "--resume" in error


def test_a_terminated_training_goes_on(
    command: list[str],
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with monkeypatch.context() as patch:
        signal_amid_an_update(signal.SIGTERM, patch)
        assert main(command) == 130
    assert "--resume" in capsys.readouterr().err
    assert main([*command, "--resume"]) == 0
    assert same(whole, tmp_path / "out")


def test_a_deeper_network_starts_as_the_function_of_a_trained_one(
    whole: Path, photos: Path, tmp_path: Path
) -> None:
    earlier = load_weights(whole / "tiny.safetensors")
    deeper = replace(RECIPE, net=replace(RECIPE.net, blocks=(2, 1, 3), up_blocks=(1, 2)))
    run = Trainer(deeper, "cpu", False)
    run.start_from(earlier)
    x = torch.randn(1, 3, 24, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(run.prior().denoise(x, 0.4), earlier.denoise(x, 0.4))
    assert fit(deeper, photos, tmp_path, start=whole / "tiny.safetensors", **QUIET)
    assert (
        "Started from an earlier training: blocks (1, 1, 1)" in (tmp_path / "tiny.md").read_text()
    )
    after = load_weights(tmp_path / "tiny.safetensors")
    assert not torch.equal(after.denoise(x, 0.4), earlier.denoise(x, 0.4))


def test_a_network_of_another_width_cannot_be_started_from(whole: Path) -> None:
    wider = replace(RECIPE, net=replace(RECIPE.net, widths=(8, 12, 20)))
    with pytest.raises(InvdiffError, match="only blocks may be added"):
        Trainer(wider, "cpu", False).start_from(load_weights(whole / "tiny.safetensors"))
    fewer = replace(RECIPE, net=replace(RECIPE.net, blocks=(1, 1, 0)))
    with pytest.raises(InvdiffError, match="only blocks may be added"):
        Trainer(fewer, "cpu", False).start_from(load_weights(whole / "tiny.safetensors"))
