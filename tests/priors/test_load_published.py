"""load_prior on files of every published format: right, cached, and safe from what they claim."""

from __future__ import annotations

import argparse
import json
import math
import os
import pickle
import resource
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from edm_files import edm_pickle, runs_its_source, tensors_equal, tree
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

import golden
from helpers import sentence
from invdiff import load_prior
from invdiff.cli import main
from invdiff.core import InvdiffError
from invdiff.core.cache import CACHE
from invdiff.core.schedules import VP
from invdiff.priors.base import Prior
from invdiff.priors.formats import FORMATS
from invdiff.priors.guidance import Guided
from invdiff.priors.published import files, load, pickles, rows
from invdiff.priors.published.base import Options

ADM = golden.options("guided-legacy")
NO_CHECK = dict(check=False)  # random weights denoise nothing
UNCHECKED = ADM | NO_CHECK


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv(CACHE, str(folder))
    return folder


def images(n: int = 32, channels: int = 3) -> torch.Tensor:
    return torch.randn(2, channels, n, n, generator=torch.Generator().manual_seed(1))


def load_unchecked(*args: object, **options: object) -> Prior:
    return load_prior(*args, check=False, **options)


def make(case: str, form: str | None = None) -> Callable[[Path], Path]:
    """A function that writes the file of a case under a path."""

    def write(path: Path) -> Path:
        folder = path.parent / "made"
        folder.mkdir(exist_ok=True)
        return golden.written(case, folder, form).replace(path)

    return write


make_adm = make("guided-legacy")


def make_diffusers(path: Path) -> Path:
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    torch.manual_seed(0)
    net = UNet2DModel(
        sample_size=32,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
    )
    DDPMPipeline(net, DDPMScheduler()).save_pretrained(path)
    return path


def make_bare(path: Path) -> Path:
    save_file(golden.state("edm-ddpmpp"), path)
    return path


KINDS: dict[str, tuple[Callable[[Path], Path], str, dict]] = {
    "guided-diffusion (ADM)": (make_adm, "model.pt", ADM),
    "consistency_models": (make("cm-edm-narrow"), "edm.pt", dict(label=5)),
    "DDPM, DDIM": (make("ddpm-sdedit", "ddim_list"), "ckpt.pth", {}),
    "score_sde": (make("scoresde-ve-ncsnpp"), "checkpoint_8.pth", {}),
    "score_sde vp": (make("scoresde-vp-ddpm"), "vp.pth", dict(sde="vp")),
    "score_sde subvp": (make("scoresde-subvp-ddpmpp"), "sub.bin", dict(sde="subvp")),
    "EDM": (make("edm-ddpmpp"), "edm.pkl", {}),
    "EDM iddpm": (make("edm-iddpm-adm"), "edm.pkl", {}),
    "EDM bare": (make_bare, "edm.safetensors", dict(sigma_data=0.5)),
    "diffusers": (make_diffusers, "folder", {}),
}


AGAIN = {"guided-diffusion (ADM)", "score_sde vp", "EDM bare", "diffusers"}
"""Repeated from run.json: options of every type, a label, a folder, and a bare state dict."""


def test_every_format_of_the_table_is_loaded_here() -> None:
    assert {f.name for f in FORMATS} <= set(KINDS)


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_from_the_file_to_a_restored_picture(
    kind: str, tmp_path: Path, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command line, with a sampler that uses gradients and one that uses a decomposition."""
    make, name, options = KINDS[kind]
    path = make(tmp_path / name)
    label = options.get("label")
    told = ",".join(f"{k}={v}" for k, v in options.items() if k != "label")
    for solver in ("DPS", "DDRM") if kind in ("guided-diffusion (ADM)", "diffusers") else ("DPS",):
        args = ["restore", "denoise", str(photo), "--noise", "0.1", "--prior", str(path)]
        args += ["--solver", solver.lower(), "--steps", "2", "--samples", "1", "--quiet"]
        args += ["--prior-options", told] if told else []
        args += ["--no-check", *(["--label", str(label)] if label is not None else [])]
        assert main([*args, "--out", str(tmp_path / solver)]) == 0, capsys.readouterr().err
        config = json.loads((tmp_path / solver / "run.json").read_text())
        assert config["prior"]["fingerprint"] and config["prior_options"] == options
        shown = capsys.readouterr().out
        if config["prior_presumed"]:
            assert f"presumed {', '.join(config['prior_presumed'])}; --prior-options" in shown
        assert bool(config["prior_presumed"]) == (kind not in ("diffusers",))
    if kind not in AGAIN:
        return
    again = [
        "restore",
        "--from",
        str(tmp_path / "DPS" / "run.json"),
        "--prior",
        str(path),
        "--quiet",
    ]
    assert main([*again, "--out", str(tmp_path / "again")]) == 0, capsys.readouterr().err
    for picture in sorted((tmp_path / "DPS").glob("*.png")):
        assert (tmp_path / "again" / picture.name).read_bytes() == picture.read_bytes(), picture


def test_the_prior_of_a_file(tmp_path: Path) -> None:
    sigma, x = 0.7, images(32)
    prior = load_unchecked(make_adm(tmp_path / "model.pt"), **ADM)
    want = prior.denoise(x, sigma)
    assert prior.shape == (3, None, None) and prior.value_range == (-1, 1)
    sentence(lambda: prior.denoise(images(31), 1.0), "multiples of 2", "31 x 31")
    low = load_unchecked(tmp_path / "model.pt", precision="bfloat16", **ADM)
    assert 0 < (low.denoise(x, sigma) - want).abs().max() / want.abs().max() < 0.1


def test_ddim_takes_the_average(tmp_path: Path) -> None:
    """Of [model, optimizer, epoch, step, average]; the live weights are larger by 1."""
    prior = load_unchecked(make("ddpm-sdedit", "ddim_list")(tmp_path / "ckpt.pth"))
    want = golden.state("ddpm-sdedit")["conv_in.weight"]
    assert torch.equal(prior.net.net.conv_in.weight, want)
    assert prior.shape == (3, 32, 32)
    assert load_unchecked(tmp_path / "ckpt.pth", any_size=True).shape == (3, None, None)


def test_bfloat16_keeps_the_frequencies(tmp_path: Path) -> None:
    """The frequencies are about 16: phases of a hundred radians mean nothing in 8 bits."""
    path = make("scoresde-ve-ncsnpp")(tmp_path / "s.pth")
    full = load_unchecked(path).net.net
    half = load_unchecked(path, precision="bfloat16").net.net
    assert half.conv_in.weight.dtype == torch.bfloat16
    t = torch.tensor([math.log(5.0)])
    assert torch.equal(half._features(t), full._features(t))
    half.frequencies = full.frequencies.bfloat16()
    assert (half._features(t) - full._features(t)).abs().max() > 0.1


WRAPS = ["state_dict", "model", "ema", "module.", "ema_model", "netG", "Lightning", "nested"]


@pytest.mark.parametrize("wrap", WRAPS)
def test_weights_inside_of_a_checkpoint(tmp_path: Path, wrap: str) -> None:
    """Beside options and numbers of other libraries, which are no code."""
    state = golden.state("guided-legacy")
    other = {k: v + 1 for k, v in state.items()}
    found = {wrap: state, "step": 3, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}}
    found |= {"args": argparse.Namespace(lr=1e-4), "loss": np.float64(0.5)}
    found |= {"model": other} if wrap in ("ema", "ema_model") else {}
    if wrap == "module.":
        found = {f"module.{k}": v for k, v in state.items()}
    if wrap == "Lightning":
        found = {"state_dict": {f"unet.{k}": v for k, v in state.items()}, "epoch": 3}
    if wrap == "nested":
        found = {"model": {"state_dict": state}}
    torch.save(found, tmp_path / "model.pt")
    prior = load_unchecked(tmp_path / "model.pt", **ADM)
    assert torch.equal(prior.net.net.conv_in.weight, state["input_blocks.0.0.weight"])


def test_objects_and_programs_are_told_a_way(tmp_path: Path) -> None:
    """A whole module, and a TorchScript program: nothing in them is run, so they are refused."""
    torch.save(nn.Linear(2, 3), tmp_path / "model.pt")
    sentence(lambda: load_prior(tmp_path / "model.pt"), "torch.nn", "Linear", "state_dict() alone")
    torch.jit.trace(nn.Linear(2, 3), torch.ones(2)).save(tmp_path / "script.pt")
    sentence(lambda: load_prior(tmp_path / "script.pt"), "TorchScript", "from_eps_model")


# Every row is the exact denoiser of a normal law


class Exact(nn.Module):
    """Stands where the converted network stands; answers what its row says for N(0, v)."""

    def __init__(self, answer: Callable[[torch.Tensor, float], torch.Tensor]) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        return self.answer(x, float(time[0]))


V = 0.3


def eps_of(x: torch.Tensor, a: float, s: float) -> torch.Tensor:
    """E[eps | x_t] for x_t = a x0 + s eps, x0 ~ N(0, V)."""
    return s / (a * a * V + s * s) * x


def sde_eps(t: float, sub: bool) -> tuple[float, float]:
    a = math.exp(-(t**2) * 19.9 / 4 - t * 0.1 / 2)
    return a, (1 - a * a if sub else math.sqrt(1 - a * a))


def table_eps(schedule: str, steps: int, t: float) -> tuple[float, float]:
    scale = 1000 / steps
    path = VP(1, schedule, train_steps=steps, beta_min=1e-4 * scale, beta_max=0.02 * scale)
    bars = path.alpha_bars()
    log_sigma = np.interp(t, np.arange(steps), 0.5 * (np.log1p(-bars) - np.log(bars)))
    sigma = math.exp(log_sigma)
    return 1 / math.hypot(1, sigma), sigma / math.hypot(1, sigma)


def edm_answer(x: torch.Tensor, c_noise: float) -> torch.Tensor:
    sigma, d = math.exp(4 * c_noise), 0.5
    x = x * math.hypot(sigma, d)
    skip, out = d * d / (sigma**2 + d * d), sigma * d / math.hypot(sigma, d)
    return (V / (V + sigma**2) * x - skip * x) / out


ROWS = {
    "linear": (dict(row="eps"), lambda x, t: eps_of(x, *table_eps("linear", 1000, t))),
    "cosine 4000": (
        dict(row="eps", schedule="cosine", steps=4000, scale=0.25),
        lambda x, t: eps_of(x, *table_eps("cosine", 4000, 4 * t)),
    ),
    "vp": (dict(row="eps_sde"), lambda x, t: eps_of(x, *sde_eps(t / 999, False))),
    "subvp": (dict(row="eps_sde", sub=True), lambda x, t: eps_of(x, *sde_eps(t / 999, True))),
    "score": (
        dict(row="score", sigma_min=0.01, sigma_max=50.0),
        lambda x, t: -eps_of(x, 1.0, math.exp(t)),
    ),
    "edm ve": (dict(row="edm_ve"), lambda x, t: -eps_of(x, 1.0, 2 * math.exp(t))),
    "edm": (dict(row="edm", sigma_data=0.5), edm_answer),
}


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("sigma", [0.02, 0.3, 1.0, 9.0, 45.0])
def test_rows_are_exact(name: str, sigma: float) -> None:
    from invdiff.priors.precond import NetworkPrior

    trained, answer = ROWS[name]
    x = torch.linspace(-3, 3, 48, dtype=torch.float64).reshape(1, 3, 4, 4) * (1 + sigma)
    found = NetworkPrior(Exact(answer), rows.row(trained)).denoise(x, sigma)
    want = V / (V + sigma**2) * x
    assert (found - want).abs().max() < 1e-9 * x.abs().max()


def test_a_wrong_row_is_not_exact() -> None:
    from invdiff.priors.precond import NetworkPrior

    x = torch.ones(1, 3, 4, 4, dtype=torch.float64)
    for right in ROWS:
        for wrong in ROWS:
            try:
                net = Exact(ROWS[right][1])
                found = NetworkPrior(net, rows.row(ROWS[wrong][0])).denoise(x, 0.8)
            except (OverflowError, ValueError):  # an index taken for a logarithm, or the reverse
                continue
            gap = (
                (found - V / (V + 0.64) * x).abs().max()
            )  # a table is near the SDE that it samples
            assert (gap < 1e-9) if right == wrong else (gap > 1e-5), (right, wrong)


# Classes and guidance


COND = golden.options("guided-class-cond") | NO_CHECK
COND.pop("label")


def test_guidance(tmp_path: Path) -> None:
    x, path = images(32), make("guided-class-cond")(tmp_path / "cond.pt")
    with_class, without = (load_prior(path, label=k, **COND).denoise(x, 2.0) for k in (1, 4))
    for w in (0.0, 1.0, 2.5):
        prior = load_prior(path, label=1, guidance=w, null_label=4, **COND)
        want = without + w * (with_class - without)
        torch.testing.assert_close(prior.denoise(x, 2.0), want, rtol=1e-5, atol=1e-5)
    assert isinstance(prior, Guided) and prior.shape == (3, None, None)
    assert prior.differentiable and prior.presumed == prior.conditional.presumed != ()
    prior.unconditional.differentiable = False
    assert not Guided(prior.conditional, prior.unconditional, 2.0).differentiable
    assert torch.equal(prior.denoise(x, 0), x)
    told = (dict(guidance=1, null_label=4), dict(guidance=2, null_label=4), {})
    assert len({load_prior(path, label=1, **more, **COND).fingerprint for more in told}) == 3
    sentence(lambda: load_prior(path, **COND), "label", "from 0 to 999")
    sentence(lambda: load_prior(path, label=1000, **COND), "from 0 to 999")
    sentence(lambda: load_prior(path, label=1, guidance=2.0, **COND), "null_label")
    wrong = COND | dict(label=1, guidance=2.0)
    sentence(lambda: load_prior(path, null_label=1000, **wrong), "from 0 to 999")
    sentence(lambda: load_prior(path, null_label=-1, **wrong), "0 or more")
    sentence(lambda: load_prior(path, guidance=2.0, **COND), "label")
    sentence(lambda: load_prior(path, label=1, null_label=4, **COND), "null_label", "give guidance")
    sentence(lambda: load_prior(path, label=1, guidance=math.nan, **COND), "guidance")
    sentence(lambda: load_prior(make_adm(tmp_path / "u.pt"), label=1, **ADM), "no classes")
    sentence(lambda: load_prior("photo", label=1), "takes no label")
    sentence(lambda: load_prior("photo", heads=1), "takes no heads")


def test_guidance_of_edm_needs_no_option(tmp_path: Path) -> None:
    """Its own sign for no class is a vector of zeros."""
    x, sigma = images(32), 1.7
    path = make("edm-ddpmpp-cond-null")(tmp_path / "edm.pkl")
    found = load_unchecked(path, label=2, guidance=3.0).denoise(x, sigma)
    none, two = (load_unchecked(path, label=k).denoise(x, sigma) for k in (10, 2))
    torch.testing.assert_close(found, none + 3 * (two - none), rtol=1e-4, atol=1e-4)
    sentence(lambda: load_prior(path), "class-conditional", "from 0 to 9")


def test_guidance_on_the_command_line(tmp_path: Path, photo: Path, capsys) -> None:
    path = make("guided-class-cond")(tmp_path / "cond.pt")
    args = ["restore", "denoise", str(photo), "--noise", "0.1", "--prior", str(path)]
    args += ["--solver", "ddrm", "--steps", "2", "--samples", "1", "--quiet", "--label", "1"]
    args += ["--no-check"]
    options = ",".join(f"{k}={v}" for k, v in ADM.items()) + ",null_label=4"
    out = ["--guidance", "1.5", "--out", str(tmp_path / "o"), "--prior-options", options]
    assert main([*args, *out]) == 0, capsys.readouterr().err
    told = json.loads((tmp_path / "o" / "run.json").read_text())["prior_options"]
    assert told == dict(label=1, guidance=1.5, null_label=4) | ADM
    for bad, word in (
        ("heads", "NAME=VALUE"),
        ("head=1", "did you mean heads"),
        ("heads=two", "whole number"),
        ("heads=0", "above 0"),
        ("any_size=1", "true or false"),
        ("sigma_max=inf", "above 0"),
        ("schedule=square", "linear, cosine"),
    ):
        assert main([*args, "--prior-options", bad]) == 2
        assert word in capsys.readouterr().err


# The cache


def test_converted_weights_are_kept(tmp_path: Path, cache: Path, monkeypatch) -> None:
    path, x = make_adm(tmp_path / "model.pt"), images(32)
    first = load_prior(path, **UNCHECKED)
    kept = list(cache.rglob("*.safetensors"))
    assert len(kept) == 1 and not list(cache.rglob("*.part"))

    def refuse(*args: object) -> None:
        raise AssertionError("converted again")

    with monkeypatch.context() as patch:
        patch.setattr(load, "convert", refuse)
        second = load_prior(path, **UNCHECKED)
        assert load_prior(path, any_size=True, **UNCHECKED).shape == (3, None, None)
    assert torch.equal(first.denoise(x, 1.0), second.denoise(x, 1.0))
    assert first.fingerprint == second.fingerprint and len(first.fingerprint) == 25
    other = load_prior(
        path, **UNCHECKED | dict(schedule="cosine")
    )  # other options are another prior
    assert other.fingerprint != first.fingerprint and len(list(cache.rglob("*.safetensors"))) == 2
    kept[0].write_bytes(kept[0].read_bytes()[:-100])  # a broken one is made again
    assert load_prior(path, **UNCHECKED).fingerprint == first.fingerprint
    assert load_file(kept[0])
    state = golden.state("guided-legacy")
    torch.save({k: v + 1 for k, v in state.items()}, path)  # another file of the same name
    assert load_prior(path, **UNCHECKED).fingerprint[:16] != first.fingerprint[:16]


def test_a_converted_file_is_a_prior_too(tmp_path: Path, cache: Path) -> None:
    path, x = make_adm(tmp_path / "model.pt"), images(32)
    prior, kept = load_prior(path, **UNCHECKED), next(cache.rglob("*.safetensors"))
    again = load_unchecked(kept)
    assert torch.equal(prior.denoise(x, 1.0), again.denoise(x, 1.0))
    assert again.fingerprint == prior.fingerprint
    sentence(lambda: load_prior(kept, heads=2), "leave them out")


@pytest.mark.parametrize("how", ["off", "unwritable"])
def test_no_cache(tmp_path: Path, monkeypatch, how: str) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the folder would be")
    monkeypatch.setenv(CACHE, "off" if how == "off" else str(blocked))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    load_prior(make_adm(tmp_path / "model.pt"), **UNCHECKED)
    assert not (tmp_path / "home").exists() and blocked.is_file()
    assert not (tmp_path / "off").exists()


def test_the_cache_is_in_the_users_folder(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv(CACHE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    load_prior(make_adm(tmp_path / "model.pt"), **UNCHECKED)
    assert list((tmp_path / "home" / "invdiff" / "converted").glob("*.safetensors"))


# Files that are not what they say


def refused(path: Path, *words: str, **options: object) -> None:
    """One sentence, within seconds, and without much memory."""
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    sentence(lambda: load_prior(path, **options), *words)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < 300 and time.monotonic() - start < 20, grown


def test_edm_pickles_run_no_code(tmp_path: Path) -> None:
    """The same file runs its source when it is unpickled without care: the negative twin."""
    canary, path = tmp_path / "ran", tmp_path / "edm.pkl"
    state = {k.removeprefix("model."): v for k, v in golden.state("edm-ddpmpp").items()}
    net = tree(state)
    edm_pickle(net, path, canary)
    assert runs_its_source(path, canary)
    load_unchecked(path)
    assert not canary.exists()
    tensors, plain = pickles.network(pickles.read_pickle(path.read_bytes(), "f"), "f")
    assert tensors_equal(tensors, state)
    assert plain["class_name"] == "EDMPrecond" and plain["sigma_data"] == 0.5


def test_classes_become_bags(tmp_path: Path) -> None:
    """A module of torch, and one of EDM's that its decorator left alone, keep their attributes."""
    found = pickles.read_pickle(pickle.dumps(nn.Linear(2, 3)), "f")
    assert type(found) is pickles.Bag and found.in_features == 2
    text = b"ctraining.networks\nLinear\n)\x81}X\x01\x00\x00\x00aK\x05sb."
    assert vars(pickles.read_pickle(text, "f")) == {"a": 5}
    sentence(lambda: pickles.read_pickle(text.replace(b"networks", b"networkz"), "f"), "networkz")


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("name", ["evil.pkl", "evil.pt", "evil.ckpt", "evil.bin"])
def test_other_pickles_run_no_code(tmp_path: Path, name: str) -> None:
    canary, path = tmp_path / "ran", tmp_path / name
    if name.endswith(("pkl", "ckpt")):
        path.write_bytes(pickle.dumps({"ema": Evil(canary)}))
    else:
        torch.save({"input_blocks.0.0.weight": Evil(canary)}, path)
    refused(path, str(path) if name != "evil.pkl" else "system", ".")
    assert not canary.exists()


def test_names_that_lead_to_code_are_refused(tmp_path: Path) -> None:
    """Names that hide behind allowed modules, and the machinery of pickle itself."""
    for text in (
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"c__builtin__\ngetattr\n(S'1'\ntR.",
        b"ctorch\nload\n(S'x'\ntR.",
        b"cnumpy\nfromfile\n(S'x'\ntR.",
        b"ctorch._utils\n_rebuild_tensor_v2.__globals__\n.",
        b"ccopyreg\n_reconstructor\n(cbuiltins\nset\ncbuiltins\nobject\nNtR.",
        b"Pname\n.",
    ):
        path = tmp_path / "bad.pkl"
        path.write_bytes(text)
        refused(path)


def test_pickles_that_claim_memory(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pkl"
    for body in (
        b"\x80\x05]r\xff\xff\xff\x7f.",  # memory slot 2^31
        b"\x80\x05\x96" + struct.pack("<Q", 10**10) + b"x.",  # 10 GB of bytes
        b"\x80\x05\x8e" + struct.pack("<Q", 10**10) + b"x.",
        b"\x80\x05\x95" + struct.pack("<Q", 10**10) + b"N.",
    ):
        path.write_bytes(body)
        refused(path)
    path.write_bytes(pickle.dumps({"ema": {"a": 1}}))
    refused(path, "without a network of EDM")
    path.write_bytes(pickle.dumps([1, 2]))
    refused(path, "without a network of EDM")
    good = make("edm-ddpmpp")(tmp_path / "good.pkl").read_bytes()
    path.write_bytes(good[: len(good) // 2])
    refused(path, "no whole pickle")


def test_a_broken_header_of_safetensors(tmp_path: Path) -> None:
    path = make_bare(tmp_path / "x.safetensors")
    good = path.read_bytes()
    n = int.from_bytes(good[:8], "little")
    header = json.loads(good[8 : 8 + n])
    name = next(k for k in header if k != "__metadata__")
    options = dict(sigma_data=0.5)

    def write(changed: dict) -> None:
        text = json.dumps(changed).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + good[8 + n :])

    path.write_bytes(struct.pack("<Q", 10**10) + good[8:])
    refused(path, "claims a header of 10000000000 bytes", **options)
    path.write_bytes(good[: len(good) // 2])
    refused(path, str(path), **options)
    path.write_bytes(good[:8] + b"not json" + good[16:])
    refused(path, "header", **options)
    huge = {"dtype": "F32", "shape": [50000, 50000], "data_offsets": [0, 10**10]}
    write(header | {name: huge})
    refused(path, str(path), **options)
    write(header | {name: header[name] | {"shape": [10**5, 10**5]}})
    refused(path, str(path), **options)
    write({"__metadata__": {load.FORMAT: "{}"}} | {name: header[name]})
    refused(path, str(path))


def test_a_converted_file_that_lies(tmp_path: Path) -> None:
    """Metadata that ask for a network of 10^9 channels allocate nothing and are refused."""
    path = make_adm(tmp_path / "model.pt")
    content = files.read(path)
    c = load.convert(content, Options(**ADM), "f")
    c.config["block_out_channels"] = [32 * 10**7, 64 * 10**7]
    load.save(c, "0" * 64, tmp_path / "lie.safetensors")
    refused(tmp_path / "lie.safetensors", "lie.safetensors")
    c.config["block_out_channels"] = "many"
    load.save(c, "0" * 64, tmp_path / "lie.safetensors")
    refused(tmp_path / "lie.safetensors", "shapes")
    c.config.update(block_out_channels=[32, 64])
    c.trained["row"] = "no such row"
    load.save(c, "0" * 64, tmp_path / "lie.safetensors")
    refused(tmp_path / "lie.safetensors", "what its network is")


def test_archives_that_are_cut_or_claim_too_much(tmp_path: Path) -> None:
    path = make_adm(tmp_path / "model.pt")
    good = path.read_bytes()
    for part in (good[:-200], good[: len(good) // 2], good[:40]):
        path.write_bytes(part)
        refused(path, "truncated or broken archive", **UNCHECKED)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/data.pkl", b"\0" * 10**7)  # ten megabytes in ten kilobytes
    refused(path, "claims more data", **UNCHECKED)
    path.write_bytes(good)
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in records.items():  # 64 numbers become 200 million
            lie = data.replace(b"K@", b"J" + struct.pack("<i", 200_000_000))
            archive.writestr(name, lie if name.endswith("data.pkl") else data)
            assert lie != data or not name.endswith("data.pkl")
    refused(path, str(path), **UNCHECKED)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hello.txt", "no weights")
    refused(path, str(path), **UNCHECKED)
    wide = torch.zeros(1).expand(10**6, 10**4)  # ten thousand million numbers from one
    torch.save({"input_blocks.0.0.weight": wide}, path)
    refused(path, "claims 10000000000 numbers", **UNCHECKED)
    torch.save({"a": 1, "b": "text"}, path)
    refused(path, "no tensors by name", **UNCHECKED)
    torch.save(torch.ones(3), path)
    refused(path, "no tensors by name", **UNCHECKED)
    torch.save({"input_blocks.0.0.weight": torch.full((3, 3), torch.nan)}, path)
    refused(path, "not finite", **UNCHECKED)


def test_what_is_no_file_of_weights(tmp_path: Path) -> None:
    for suffix in files.SUFFIXES:
        path = tmp_path / f"file{suffix}"
        refused(path, "no file", str(path))
        path.write_bytes(b"")
        refused(path, "is empty")
        path.write_text("<!DOCTYPE html><html>404</html>")
        refused(path, "web page")
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
        refused(path, "Git LFS")
        path.write_bytes(os.urandom(4000))
        refused(path, str(path))
        path.write_text("some text that is no weights at all")
        refused(path, str(path))
        path.unlink()
        path.mkdir()
        refused(path, "folder")


def test_a_path_never_reaches_the_network(tmp_path: Path, monkeypatch) -> None:
    def refuse(*args: object, **more: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    load_prior(make_adm(tmp_path / "model.pt"), **UNCHECKED)
    monkeypatch.chdir(tmp_path)
    sentence(lambda: load_prior("owner/name.pt"), "no file")
    sentence(lambda: load_prior(Path("owner/name")), "folder")


def test_unknown_options_and_options_of_other_formats(tmp_path: Path) -> None:
    with pytest.raises(InvdiffError, match="did you mean heads"):
        load_prior("photo", head=1)
    path = make_diffusers(tmp_path / "folder")
    sentence(lambda: load_prior(path, schedule="linear"), "leave the option schedule out")
    assert load_unchecked(path, any_size=True).shape == (3, None, None)
    file = next(path.rglob("*.safetensors"))
    sentence(lambda: load_prior(file), "weights of diffusers", "folder")


def test_torchvision_that_does_not_match(tmp_path: Path, monkeypatch) -> None:
    import sys
    from types import ModuleType

    class Broken(ModuleType):
        def __getattr__(self, name: str) -> object:
            raise RuntimeError("operator torchvision::nms does not exist")

    path = make_adm(tmp_path / "model.pt")
    monkeypatch.setitem(sys.modules, "diffusers", Broken("diffusers"))
    sentence(lambda: load_prior(path, **UNCHECKED), "torchvision does not match this torch")
    load_unchecked(make("edm-ddpmpp")(tmp_path / "song.pkl"))  # our own network needs no diffusers
