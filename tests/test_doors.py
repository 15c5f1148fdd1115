"""Files, caches, networks and surroundings that are hostile, broken or odd."""

from __future__ import annotations

import dataclasses
import io
import multiprocessing
import os
import pickle
import socket
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

import invdiff
from invdiff import solvers
from invdiff.cli import main
from invdiff.core import InvdiffError, Level, cache, printable
from invdiff.core.alike import FEW, Alike
from invdiff.core.limits import in_words
from invdiff.core.schedules import Karras
from invdiff.files.pictures import check_file, read_photo
from invdiff.noise import GaussianNoise
from invdiff.operators import Identity
from invdiff.priors import precond
from invdiff.priors.adapters import from_deepinv, from_k_diffusion
from invdiff.priors.base import Denoiser, Prior
from invdiff.priors.load import load_prior
from invdiff.priors.photo import load_weights
from invdiff.priors.precond import NetworkPrior
from invdiff.priors.published import files, pickles, rows
from invdiff.problem import Problem
from invdiff.sampling.needs import IncompatibleError
from invdiff.sampling.run import solve
from invdiff.solvers.cbg import CBG

UNABLE = {"ddnm", "ddrm-jpeg", "latino", "pocs", "psld", "resample", "spectral-jpeg"}
"""Solvers that cannot denoise pictures: they take latents, JPEG files or no noise."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, in which a cache is, and from which commands run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(cache.CACHE, str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def photo(folder: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "ok.png")
    return folder / "ok.png"


def refused(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    """What is said of a command line that is bad input: one line, nothing else."""
    before = set(Path().iterdir())
    assert main(list(args)) == 2, capsys.readouterr()
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1 and set(Path().iterdir()) == before
    return err


# Files


def test_pipes_are_no_files(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """None of the doors waits for one."""
    os.mkfifo("p.png")
    os.mkdir("d")
    os.mkfifo("d/x.png")
    noise = ["--noise", "0.1"]
    assert "pipe" in refused(capsys, "restore", "denoise", "p.png", *noise)
    Image.new("RGB", (8, 8)).save("ok.png")
    assert "kernel" in refused(capsys, "restore", "deblur", "ok.png", "--kernel", "p.png", *noise)
    assert "mask" in refused(capsys, "restore", "inpaint", "ok.png", "--mask", "p.png", *noise)
    assert "pipe" in refused(capsys, "restore", "denoise", "ok.png", "--config", "p.png")
    for data, word in (("p.png", "pipe"), ("d", "no training image")):
        assert word in refused(capsys, "train", "fashion28", "--data", data, "--out", "o")
    assert "no file" in refused(capsys, "restore", "denoise", "ok.png", "--prior", "p.png", *noise)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_permission_denied_is_said(photo: Path) -> None:
    photo.chmod(0)
    with pytest.raises(InvdiffError, match="Permission denied"):
        read_photo(photo)


def test_what_the_system_says_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (8, 8)).save("ok.png")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(InvdiffError, match="Permission denied"):
        read_photo("ok.png")
    for name in ("a" * 5000, "a/" * 3000, "\0"):
        with pytest.raises(InvdiffError) as found:
            check_file(Path(name))
        assert len(str(found.value)) < 300


def test_control_characters_do_not_reach_the_terminal(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert printable("a\x1b[31m\x9b\u202eb\tä\n") == "a\\x1b[31m\\x9b\\u202eb\tä\n"
    told = refused(capsys, "restore", "denoise", "no\x1b[31mred.png", "--noise", "0.1")
    assert "\x1b" not in told and "\\x1b[31mred.png" in told


YAML = {
    "anchors": "a: &a [x, x]\nb: &b [*a, *a]\n",
    "recursive": "a: &a [*a]\n",
    "deep": "a: " + "[" * 5000 + "]" * 5000,
    "long": "a: " + "x" * 2_000_000,
    "list": "solver: [ddrm]\n",
    "object": "steps: !!python/object/apply:os.system [ls]\n",
    "number": "steps: 2.5\n",
    "word": "overwrite: maybe\n",
}


@pytest.mark.parametrize("case", YAML)
def test_options_in_yaml_are_bounded(
    photo: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("c.yaml").write_text(YAML[case])
    refused(capsys, "restore", "denoise", "ok.png", "--noise", "0.1", "--config", "c.yaml")


@pytest.mark.parametrize(
    ("option", "word"),
    [
        (["--samples", "1000000000"], "TB of memory"),
        (["--batch", "1000000000"], "TB of memory"),
        (["--steps", "1000000000000"], "TB of memory"),
        (["--steps", "1" + "0" * 20], "too large a number"),
        (["--samples", "1.5"], "a whole number"),
    ],
)
def test_counts_have_a_limit(
    photo: Path, option: list[str], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert word in refused(capsys, "restore", "denoise", "ok.png", "--noise", "0.1", *option)


def test_sizes_in_words() -> None:
    assert [in_words(n) for n in (0, 999, 1e3, 2.5e9, 1e30)] == [
        "0 bytes", "999 bytes", "1 kB", "2.5 GB", "1e+12 EB"
    ]  # fmt: skip


def test_archives_inside_of_a_pickle_are_not_believed() -> None:
    """A packed record of zeros is small; the one that torch itself writes is read."""
    stream = io.BytesIO()
    torch.save(torch.ones(3), stream)
    assert torch.equal(pickles._storage(stream.getvalue()), torch.ones(3))
    packed = io.BytesIO()
    with zipfile.ZipFile(stream) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(InvdiffError, match="claims more data than it has bytes"):
        pickles._storage(packed.getvalue())


@pytest.mark.parametrize(
    "trained",
    [
        {"row": "eps", "steps": 2**28},
        {"row": "eps", "schedule": "cosine", "steps": 2**28},
        {"row": "iddpm", "levels": 2**28},
    ],
)
def test_tables_of_a_billion_steps_are_refused(trained: dict[str, Any]) -> None:
    with pytest.raises(InvdiffError, match="of memory"):
        rows.row(trained)


def test_nested_headers_are_no_headers(folder: Path) -> None:
    deep = b'{"a":' * 100_000
    Path("x.safetensors").write_bytes(len(deep).to_bytes(8, "little") + deep)
    with pytest.raises(InvdiffError, match="no header that can be read"):
        files.read(Path("x.safetensors"))
    config = {"config": deep.decode(), "facts": "{}"}
    save_file({"a": torch.zeros(1)}, "y.safetensors", metadata=config)
    with pytest.raises(InvdiffError, match="not a prior trained by invdiff"):
        load_weights(Path("y.safetensors"))
    os.mkdir("m")
    Path("m/config.json").write_bytes(deep)
    with pytest.raises(InvdiffError, match="not a JSON configuration"):
        load_prior("m")


# The network


@pytest.mark.parametrize(
    "spec",
    ["google/ddpm-cat-256", "models/ffhq", "weights/x.npz", "a/b.pt", "./a/b", "~/none/x", "fotos"]
    + ["", ".", "a" * 5000, "a/" * 3000, "~nouser/x", "\0", "http://x.y/z", "hf/x", "hf:x", "hf:"],
)
def test_nothing_but_hf_names_reaches_for_the_network(
    spec: str, photo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*args: object, **more: object) -> None:
        raise AssertionError("the network was used")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setitem(sys.modules, "diffusers", None)  # nor is it imported
    with pytest.raises(InvdiffError) as found:
        load_prior(spec)
    assert len(str(found.value)) < 600
    if spec and "\0" not in spec:
        refused(capsys, "restore", "denoise", "ok.png", "--noise", "0.1", "--prior", spec)


def test_the_name_on_the_hub_is_told(folder: Path) -> None:
    with pytest.raises(InvdiffError, match="is hf:google/ddpm-cat-256"):
        load_prior("google/ddpm-cat-256")


def test_an_hf_name_is_looked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The negative twin."""
    asked = []

    def download(name: str, allow_patterns: list[str]) -> str:
        asked.append(name)
        raise OSError("no network here")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(InvdiffError, match="did not answer"):
        load_prior("hf:google/ddpm-cat-256")
    assert asked == ["google/ddpm-cat-256"]


# The cache


def test_what_is_kept_is_checked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flipped bit of numbers or of metadata, and a name that is another's, are noticed."""
    monkeypatch.setattr(cache, "WORTH", 0)
    built = []

    def build() -> cache.Parts:
        built.append(1)
        return {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2, dtype=torch.bfloat16)}

    for _ in range(2):
        found = cache.cached("x", "key", build)
        assert torch.equal(found["a"], torch.arange(6.0).reshape(2, 3)) and len(built) == 1
    (file,) = cache.held()
    whole = file.read_bytes()
    for at in (len(whole) - 1, whole.index(b"checksum") + 11, whole.index(b"BF16")):
        broken = bytearray(whole)
        broken[at] ^= 1
        file.write_bytes(broken)
        assert cache.read(file) is None
    cache.cached("x", "key", build)
    assert len(built) == 2 and cache.read(file) is not None
    cache.write(file, build(), {"source": "1"})
    file.write_bytes(file.read_bytes().replace(b'"source":"1"', b'"source":"2"'))
    assert cache.read(file) is None


def test_the_limit_counts_everything(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = cache.folder()
    assert where is not None
    places = [where / "a.safetensors", where / cache.CONVERTED / "b.safetensors"]
    for k, file in enumerate(places):
        cache.write(file, {"a": torch.zeros(1000)})
        os.utime(file, (k, k))
    (where / "notes.txt").write_text("mine")
    size = places[0].stat().st_size
    monkeypatch.setattr(cache, "LIMIT", 2.5 * size)
    last = where / cache.CONVERTED / "c.safetensors"
    cache.write(last, {"a": torch.zeros(1000)})
    assert cache.held() == [places[1], last]
    assert cache.clear() == 2 * size and not cache.held() and (where / "notes.txt").exists()


def test_a_full_disk_is_no_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors import SafetensorError

    def full(*args: object) -> None:
        raise SafetensorError("No space left on device (os error 28)")

    monkeypatch.setattr(cache, "WORTH", 0)
    monkeypatch.setattr("safetensors.torch.save_file", full)
    assert torch.equal(cache.cached("x", "key", lambda: {"a": torch.ones(1)})["a"], torch.ones(1))
    assert not cache.held()


def test_the_command_shows_and_clears(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = cache.folder()
    assert where is not None and main(["cache"]) == 0
    assert "0 files, 0 bytes of 4 GB" in capsys.readouterr().out
    cache.write(where / "x-1.safetensors", {"a": torch.zeros(2500)})
    assert main(["cache", "--show"]) == 0
    out = capsys.readouterr().out
    assert "1 files, 10 kB of 4 GB" in out and "10 kB  x-1.safetensors" in out
    assert main(["cache", "--clear"]) == 0 and not cache.held()
    assert "1 files, 10 kB" in capsys.readouterr().out
    assert main(["cache", "--clear", "--show"]) == main(["cache", "all"]) == 2


def test_relative_folders_count_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the XDG Base Directory Specification has it."""
    monkeypatch.delenv(cache.CACHE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    assert cache.folder() == Path.home() / ".cache" / "invdiff"


# Training


@pytest.mark.parametrize(
    ("more", "word"),
    [
        (["--resume"], "no o/checkpoint.pt to go on from"),
        (["--key", "x"], "--key chooses an array of an .npz file"),
        (["--start", "none.safetensors"], "no file none.safetensors"),
        (["--patch", "7"], "multiple of 4"),
        (["--batch", "100000000"], "GB of memory"),
    ],
)
def test_training_checks_before_it_reads(
    folder: Path,
    more: list[str],
    word: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    os.mkdir("d")
    monkeypatch.setattr("invdiff.train.fit.read", lambda *args: pytest.fail("images were read"))
    assert word in refused(capsys, "train", "fashion28", "--data", "d", "--out", "o", *more)
    assert "--out needs a value" in refused(
        capsys, "train", "fashion28", "--data", "d", "--out", ""
    )


def test_a_training_that_fails_leaves_no_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [np.zeros((28, 28, 1), np.uint8)]
    np.save("x.npy", images)

    def fails(*args: object) -> None:
        raise MemoryError

    monkeypatch.setattr("invdiff.train.fit.PatchSampler", fails)
    monkeypatch.setattr("invdiff.train.fit.read", lambda *args: (images, []))
    before = set(Path().iterdir())
    options = ["--data", "x.npy", "--out", "a/b", "--batch", "2", "--quiet"]
    assert main(["train", "fashion28", *options]) == 1
    assert "not enough memory" in capsys.readouterr().err and set(Path().iterdir()) == before


# Surroundings


def nets(x: Tensor, time: Tensor) -> Tensor:
    return x * 0.5 + time.reshape(-1, 1, 1, 1)


def halves(x: Tensor, sigma: float) -> Tensor:
    return 0.5 * x


def level_and_image(x: Tensor, sigma: Tensor) -> Tensor:
    return x / (1 + sigma.reshape(-1, 1, 1, 1))


BARS = np.linspace(0.99, 0.01, 20)
PRIORS: dict[str, Any] = {
    **{
        name: lambda make=make: NetworkPrior(nets, make())
        for name, make in {
            "eps": lambda: precond.predicts_eps(BARS),
            "nearest": lambda: precond.predicts_eps(BARS, "nearest"),
            "x0": lambda: precond.predicts_x0(BARS),
            "v": lambda: precond.predicts_v(BARS),
            "sde": precond.predicts_eps_sde,
            "sub": lambda: precond.predicts_eps_sde(True),
            "score": precond.predicts_score,
            "ncsn": lambda: precond.predicts_score(True),
            "flow": precond.predicts_flow,
            "edm": precond.predicts_edm,
            **{k: lambda k=k: rows.ROWS[k](*ROWS.get(k, ())) for k in rows.ROWS},
        }.items()
    },
    "fashion28": lambda: load_prior("fashion28"),
    "deepinv": lambda: from_deepinv(halves),
    "k-diffusion": lambda: from_k_diffusion(level_and_image),
    "denoiser": lambda: Denoiser(halves),
    "gaussian": lambda: invdiff.GaussianPrior(torch.zeros(1, 28, 28), 0.25),
}
ROWS = {
    "score": (0.01, 50.0),
    "score_discrete": (0.01, 50.0),
    "edm": (0.5,),
    "eps": ("linear", 50, 2.0),
}


@pytest.mark.parametrize("name", PRIORS)
def test_priors_pickle(name: str) -> None:
    prior = PRIORS[name]()
    x = torch.linspace(-1, 1, 784).reshape(1, 1, 28, 28)
    again = pickle.loads(pickle.dumps(prior))
    for sigma in (0.05, 0.5, 5.0):
        assert torch.equal(again.denoise(x, sigma), prior.denoise(x, sigma))
    assert again.fingerprint == prior.fingerprint


def _in_another_process(prior: Prior) -> float:
    return float(prior.denoise(torch.ones(1, 1, 4, 4), 0.5).sum())


def test_priors_reach_processes_that_are_started_anew() -> None:
    prior = NetworkPrior(nets, precond.predicts_edm())
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_in_another_process, (prior,)) == _in_another_process(prior)


@pytest.mark.parametrize("wrong", ["float16", "bf16", "", None, torch.bfloat16])
def test_precision_is_one_that_is_known(wrong: Any) -> None:
    kinds = "auto, float32, blocks, mixed or bfloat16"
    with pytest.raises(InvdiffError, match=f"precision must be {kinds}"):
        load_prior("fashion28", precision=wrong)


def test_loading_does_not_depend_on_the_default_type() -> None:
    x = torch.linspace(-1, 1, 784).reshape(1, 1, 28, 28)
    before = load_prior("fashion28")
    want = before.denoise(x, 0.5)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(before.denoise(x, 0.5), want)
        after = load_prior("fashion28")
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(after.denoise(x, 0.5), want) and after.fingerprint == before.fingerprint
    with torch.inference_mode():
        inside = load_prior("fashion28")
    _, pull = inside.x0_vjp(x, Level(1.0, 0.5))
    assert torch.equal(pull(x), before.x0_vjp(x, Level(1.0, 0.5))[1](x))


def test_the_command_runs_with_odd_streams(photo: Path) -> None:
    """Warnings are errors, stdout is ASCII, then it and stderr are closed; HOME is no folder."""
    photo.rename("é.png")
    run = [sys.executable, "-W", "error", "-m", "invdiff", "restore", "denoise", "é.png"]
    run += ["--noise", "0.1", "--solver", "ddrm", "--steps", "1", "--samples", "1", "--want"]
    run += ["samples", "--quiet"]
    env = os.environ | {"PYTHONIOENCODING": "ascii", "HOME": "/dev/null", "PYTHONUTF8": "0"}
    done = subprocess.run([*run, "--out", "a"], env=env, capture_output=True, text=True)
    assert done.returncode == 0 and "\\xe9.png" in done.stdout, done.stderr
    shell = " ".join(f"'{part}'" for part in [*run, "--out", "b"])
    assert subprocess.run(["sh", "-c", f"{shell} >&- 2>&-"], env=env).returncode == 0
    assert Path("a/sample-1.png").read_bytes() == Path("b/sample-1.png").read_bytes()


# A row alone, and among others


def test_a_row_alone_is_the_same_as_among_others() -> None:
    """torch takes another convolution for one small row; its bits differ, and Alike mends it."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 64, 3, padding=1), torch.nn.Conv2d(64, 3, 3))
    x = torch.randn(3, 3, 12, 12)
    with torch.no_grad():
        want, plain = net(x)[:1], net(x[:1])
        with Alike():
            found = net(x[:1])
    assert torch.equal(found, want)
    assert plain.shape == want.shape and x[:1].numel() < FEW


@pytest.mark.parametrize("name", solvers.registry())
@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_batch_1_equals_batch_4_to_the_bit(name: str, kind: torch.dtype, net: Prior) -> None:
    """In float32 with the network of `photo`, and in float64 with an exact law: every solver."""
    shape = (3, 8, 12)
    y = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0)).to(kind) * 2 - 1
    problem = Problem(y, Identity(), GaussianNoise(0.1), shape)
    law = invdiff.GaussianPrior(torch.zeros(shape, dtype=kind), 0.25)
    prior = net if kind == torch.float32 else law
    cls = solvers.registry()[name]
    solver = cls().with_steps(2)
    if name not in ("ccdf", "snips"):  # whose steps are not those of any path
        solver = dataclasses.replace(solver, schedule=Karras(2, 1.0, 0.1))
    if isinstance(solver, CBG):
        solver = dataclasses.replace(solver, draws=4, inner=2)
    try:
        want = solve(problem, prior, solver, samples=4, batch=4).samples
    except IncompatibleError:
        assert name in UNABLE
        return
    assert name not in UNABLE
    for batch in (1, 3):
        assert torch.equal(solve(problem, prior, solver, samples=4, batch=batch).samples, want)


@pytest.fixture(scope="module")
def net() -> Prior:
    return load_prior("photo")
