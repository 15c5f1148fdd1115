"""Pipelines of latents: the pipeline's own steps, whole runs, and what is refused."""

from __future__ import annotations

import json
import logging
import shutil
import sys
from fnmatch import fnmatch
from pathlib import Path
from pipes import MAKERS, saved

import pytest
import torch
from diffusers import DiffusionPipeline, LCMScheduler
from test_hub import sentence

from helpers import seeded
from invdiff.cli import main
from invdiff.core import Level
from invdiff.noise import GaussianNoise
from invdiff.operators import AveragePool
from invdiff.priors.base import eps_from
from invdiff.priors.hub import load_diffusers
from invdiff.priors.latent import LatentPrior, in_latent_space
from invdiff.priors.load import load_prior
from invdiff.problem import Problem
from invdiff.sampling.result import Result
from invdiff.sampling.run import again, solve
from invdiff.sampling.steps import ddim
from invdiff.solvers.dps import DPS
from invdiff.solvers.psld import PSLD

SHAPE = (3, 16, 16)
F32 = dict(dtype=torch.float32)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of every kind. Tests must not change them."""
    root = tmp_path_factory.mktemp("pipelines")
    return {kind: saved(kind, root / kind) for kind in MAKERS}


@pytest.fixture
def copy(folders: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of one, to be broken."""
    return Path(shutil.copytree(folders["sd"], tmp_path / "pipe"))


def pipeline(folder: Path) -> DiffusionPipeline:
    logging.disable(logging.WARNING)
    try:
        parts = json.loads((folder / "model_index.json").read_text())
        absent = {k: None for k, v in parts.items() if v == [None, None]}
        pipe = DiffusionPipeline.from_pretrained(folder, local_files_only=True, **absent)
    finally:
        logging.disable(logging.NOTSET)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def sampled(pipe: DiffusionPipeline, kind: str, z: torch.Tensor, **told: object) -> torch.Tensor:
    """The pipeline's own latents after two deterministic steps from z."""
    if kind == "ldm":  # its pipeline draws its own start and decodes: the same loop by hand
        pipe.scheduler.set_timesteps(2)
        for t in pipe.scheduler.timesteps:
            with torch.no_grad():
                out = pipe.unet(z, t).sample
            z = pipe.scheduler.step(out, t, z).prev_sample
        return z
    if kind == "flux":
        z = pipe._pack_latents(z, *z.shape)
    told |= dict(height=16, width=16, latents=z, output_type="latent", num_inference_steps=2)
    out = pipe(**told).images
    return pipe._unpack_latents(out, 16, 16, pipe.vae_scale_factor) if kind == "flux" else out


def levels(pipe: DiffusionPipeline) -> list[Level]:
    """Where the pipeline went, from its scheduler, after a run of two steps."""
    s = pipe.scheduler
    if hasattr(s, "sigmas"):
        # a flow starts from noise alone, of infinite sigma
        return [Level(max(1 - float(t), 1e-9), float(t)) for t in s.sigmas]
    bars = [float(s.alphas_cumprod[t]) for t in s.timesteps] + [float(s.final_alpha_cumprod)]
    return [Level(bar**0.5, (1 - bar) ** 0.5) for bar in bars]


# ---- what is loaded


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("kind", MAKERS)
def test_steps_are_those_of_the_pipeline(
    folders: dict[str, Path], kind: str, guidance: float, capfd: pytest.CaptureFixture[str]
) -> None:
    """Two DDIM or Euler steps with a prompt: our denoiser, and diffusers' own loop."""
    text: dict[str, object] = {} if kind == "ldm" else {"prompt": "a photo of a cat"}
    if kind == "ldm" and guidance != 1:
        pytest.skip("it reads no text")
    pipe = pipeline(folders[kind])
    z = seeded(2, 4, 8, 8, dtype=torch.float32)
    told = dict(text, prompt=["a photo of a cat"] * 2) if text else text
    want = sampled(pipe, kind, z, **told, **({"guidance_scale": guidance} if text else {}))
    capfd.readouterr()
    prior = load_diffusers(folders[kind], guidance=guidance, **text)
    assert capfd.readouterr() == ("", "")
    path = levels(pipe)
    with torch.no_grad():
        for level, to in zip(path[:-1], path[1:], strict=True):
            z0 = prior.x0(z, level)
            z = ddim(z0, eps_from(z, z0, level), level, to, z, 0.0)
    assert (z - want).abs().max() < 1e-5 * want.abs().max()


def test_a_prompt_and_guidance_matter(folders: dict[str, Path]) -> None:
    """Negative twin of the above."""
    z = seeded(1, 4, 8, 8, dtype=torch.float32)
    told = [{}, {"prompt": "dog"}, {"prompt": "dog", "guidance": 2.0}]
    told += [{**told[-1], "negative_prompt": "cat"}]
    priors = [load_diffusers(folders["sd"], **t) for t in told]
    found = [p.denoise(z, 1.0) for p in priors]
    for i, a in enumerate(found):
        assert all((a - b).abs().max() > 1e-4 for b in found[:i])
    assert len({p.fingerprint for p in priors}) == 4
    assert load_diffusers(folders["sd"], prompt="").fingerprint == priors[0].fingerprint


@pytest.mark.parametrize("kind", MAKERS)
def test_halves_are_those_of_the_pipeline(folders: dict[str, Path], kind: str) -> None:
    pipe, prior = pipeline(folders[kind]), load_diffusers(folders[kind])
    parts, z = prior.autoencoder, seeded(2, 4, 8, 8, dtype=torch.float32)
    vae = pipe.vqvae if kind == "ldm" else pipe.vae
    scale, shift = vae.config.scaling_factor, vae.config.get("shift_factor") or 0.0
    with torch.no_grad():
        x = vae.decode(z / scale + shift).sample
        code = vae.encode(x)
        mean = code.latents if kind == "ldm" else code.latent_dist.mode()
    torch.testing.assert_close(parts.decoder(z), x)
    torch.testing.assert_close(parts.encoder(x), (mean - shift) * scale)
    assert parts.encoder.y_shape(SHAPE) == (4, 8, 8) and parts.decoder.y_shape((4, 8, 8)) == SHAPE
    assert (prior.shape, prior.image_shape) == ((4, None, None), (3, None, None))
    sentence(lambda: parts.encoder.y_shape((3, 16, 17)), "multiples of", "3 x 16 x 17")


def test_nothing_is_trained(folders: dict[str, Path]) -> None:
    prior = load_diffusers(folders["sd"])
    modules = [prior.prior.net, prior.autoencoder.decoder.vae]
    assert not any(p.requires_grad for m in modules for p in m.parameters())
    assert not any(m.training for m in modules)


def test_half_precision(folders: dict[str, Path], copy: Path) -> None:
    """Latents stay in their own precision; a decoder that overflows in float16 runs in float32."""
    z = seeded(1, 4, 8, 8, dtype=torch.float32)
    full, half = load_diffusers(copy), load_prior(str(copy), precision="bfloat16")
    assert half.autoencoder.decoder.vae.dtype == torch.bfloat16
    for one, other in (
        (full.denoise(z, 1.0), half.denoise(z, 1.0)),
        (full.autoencoder.decoder(z), half.autoencoder.decoder(z)),
    ):
        assert other.dtype == torch.float32 and not torch.equal(one, other)
        assert (one - other).norm() < 0.1 * one.norm()  # bfloat16 has 8 bits
    config = copy / "vae" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"force_upcast": True}))
    upcast = load_diffusers(copy, dtype=torch.float16)
    assert upcast.autoencoder.decoder.vae.dtype == torch.float32
    assert upcast.prior.net.net.dtype == torch.float16


# ---- whole runs


def problem() -> Problem:
    A = AveragePool(2, SHAPE[1:])
    return Problem(0.3 * seeded(1, *A.y_shape(SHAPE), **F32), A, GaussianNoise(0.05), SHAPE)


@pytest.mark.parametrize("kind", MAKERS)
def test_solvers_run_on_it(folders: dict[str, Path], kind: str) -> None:
    """DPS, which knows nothing of latents, and PSLD; images and latents come back."""
    prior = load_prior(str(folders[kind]))
    assert isinstance(prior, LatentPrior)
    for solver in (DPS().with_steps(2), PSLD().with_steps(2)):
        result = solve(problem(), prior, solver, samples=2)
        assert result.samples.shape == (1, 2, *SHAPE) and result.samples.isfinite().all()
        assert result.latents is not None and result.latents.shape == (1, 2, 4, 8, 8)
        decoded = prior.autoencoder.decoder(result.latents[0])
        torch.testing.assert_close(decoded, result.samples[0], rtol=1e-4, atol=1e-4)
        assert (result.nfe, result.vjps) == (2, 2)


def test_a_run_is_saved_and_repeated(folders: dict[str, Path], tmp_path: Path) -> None:
    prior = load_diffusers(folders["sd"])
    result = solve(problem(), prior, PSLD().with_steps(2), samples=2)
    loaded = Result.load(result.save(tmp_path / "run"))
    assert torch.equal(loaded.latents, result.latents)
    assert torch.equal(again(loaded, prior).samples, result.samples)


@pytest.mark.parametrize("solver", ["auto", "dps", "psld", "latino", "resample"])
def test_restore(folders: dict[str, Path], tmp_path: Path, solver: str) -> None:
    from PIL import Image

    photo, out = tmp_path / "photo.png", tmp_path / "out"
    Image.new("RGB", (8, 8), (200, 100, 50)).save(photo)
    told = f"super-resolution --scale 2 --solver {solver} --steps 2 --samples 1 --quiet"
    if solver == "resample":  # each of its fits may take 500 steps of its own
        told += " --solver.iterations 3 --solver.image_iterations 3"
    told = [str(photo), *told.split(), "--prior", str(folders["sd"]), "--out", str(out)]
    assert main(["restore", *told]) == 0
    with Image.open(out / "sample-1.png") as picture:
        assert picture.size == (16, 16)
    assert Result.load(out).latents.shape == (1, 1, 4, 8, 8)


def test_restore_with_a_prompt_and_again(folders: dict[str, Path], tmp_path: Path) -> None:
    from PIL import Image

    photo, found = tmp_path / "photo.png", []
    Image.new("RGB", (16, 16), (200, 100, 50)).save(photo)
    told = ["denoise", str(photo), "--noise", "0.1", "--prior", str(folders["sd"])]
    told += ["--solver", "dps", "--steps", "2", "--samples", "1", "--quiet"]
    for i, text in enumerate(([], ["--prompt", "a cat", "--guidance", "3"])):
        assert main(["restore", *told, *text, "--out", str(tmp_path / f"{i}")]) == 0
        found.append(Result.load(tmp_path / f"{i}").samples)
    assert not torch.equal(*found)
    again = ["--from", str(tmp_path / "1" / "run.json"), "--out", str(tmp_path / "2"), "--quiet"]
    again += ["--prior", str(folders["sd"])]
    assert main(["restore", *again]) == 0
    assert torch.equal(Result.load(tmp_path / "2").samples, found[1])


def test_a_prompt_for_a_prior_that_reads_none() -> None:
    sentence(lambda: load_prior("photo", prompt="cat"), "reads no text")


def test_a_name_on_the_hub(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is needed is asked for, and neither duplicates nor other parts."""
    remote, cache = Path(shutil.copytree(folders["sd"], tmp_path / "remote")), tmp_path / "cache"
    unwanted = ("unet/diffusion_pytorch_model.fp16.safetensors", "safety_checker/model.safetensors",
                "unet/diffusion_pytorch_model.bin", "README.md")  # fmt: skip
    for name in unwanted:
        (remote / name).parent.mkdir(exist_ok=True)
        (remote / name).write_text("not needed")

    def download(name: str, allow_patterns: list[str]) -> str:
        for path in remote.rglob("*"):
            inside = path.relative_to(remote)
            if path.is_file() and any(fnmatch(str(inside), p) for p in allow_patterns):
                (cache / inside).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, cache / inside)
        return str(cache)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    prior = load_prior("hf:owner/latents")
    assert prior.name == "hf:owner/latents"
    assert prior.fingerprint == load_diffusers(folders["sd"]).fingerprint
    assert not any((cache / name).exists() for name in unwanted)


def test_dit(tmp_path: Path) -> None:
    """Latents of a class; half of the outputs are eps; the label after the last is none."""
    folder = saved("dit", tmp_path)
    net, z, t = pipeline(folder).transformer, seeded(1, 4, 8, 8).float(), 400
    bar = float(pipeline(folder).scheduler.alphas_cumprod[t])
    sigma = ((1 - bar) / bar) ** 0.5

    def by_hand(label: int) -> torch.Tensor:
        with torch.no_grad():
            out = net(bar**0.5 * z, torch.tensor([t]), torch.tensor([label])).sample
        return z - sigma * out[:, :4]

    prior = load_prior(folder, label=3)
    assert isinstance(prior, LatentPrior) and prior.image_shape == (3, None, None)
    torch.testing.assert_close(prior.denoise(z, sigma), by_hand(3), rtol=1e-3, atol=1e-3)
    assert (by_hand(3) - by_hand(4)).abs().max() > 0.02
    guided = load_prior(folder, label=3, guidance=2.5)
    want = by_hand(10) + 2.5 * (by_hand(3) - by_hand(10))
    torch.testing.assert_close(guided.denoise(z, sigma), want, rtol=1e-3, atol=1e-3)
    assert len({p.fingerprint for p in (prior, guided, load_prior(folder, label=4))}) == 3
    sentence(lambda: load_prior(folder), "class-conditional", "label", "from 0 to 9")
    sentence(lambda: load_prior(folder, label=3, prompt="cat"), "reads no text")
    sentence(lambda: load_prior(folder, label=3, null_label=1), "give guidance")


# ---- what is refused, in one sentence


def test_images_that_do_not_fit(folders: dict[str, Path]) -> None:
    prior = load_diffusers(folders["sd3"])
    A = AveragePool(1, (18, 16))
    odd = Problem(torch.zeros(1, 3, 18, 16), A, GaussianNoise(0.1), (3, 18, 16))
    sentence(lambda: in_latent_space(odd, prior), "multiples of 4", "3 x 18 x 16")


def test_arguments(folders: dict[str, Path]) -> None:
    sd, ldm = folders["sd"], folders["ldm"]
    for wrong in ({"prediction": "epsilon"}, {"class_label": 1}, {"betas": [0.1]}):
        sentence(lambda w=wrong: load_diffusers(sd, **w), "works on latents", "leave")
    for wrong in ({"prompt": "cat"}, {"guidance": 2.0}):
        sentence(lambda w=wrong: load_diffusers(ldm, **w), "reads no text", "leave")
    sentence(lambda: load_diffusers(folders["flux"], negative_prompt="cat"), "negative_prompt")
    sentence(lambda: load_diffusers(sd, negative_prompt="cat"), "negative_prompt", "guidance alone")


@pytest.mark.parametrize("part", ["vae", "unet", "scheduler", "text_encoder", "tokenizer"])
def test_missing_parts(copy: Path, part: str) -> None:
    shutil.rmtree(copy / part)
    sentence(lambda: load_diffusers(copy), f"has no {part}; fetch")


def test_broken_parts(copy: Path) -> None:
    weights = copy / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    sentence(lambda: load_diffusers(copy), "cannot be loaded", "broken or missing", "fetch")
    index = copy / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"_class_name": "NoSuchPipeline"}))
    sentence(lambda: load_diffusers(copy), "NoSuchPipeline", "FluxPipeline", "not supported")


def test_another_schedule(copy: Path) -> None:
    LCMScheduler().save_pretrained(copy / "scheduler")
    sentence(lambda: load_diffusers(copy), "LCMScheduler", "not supported")


def test_a_second_input(copy: Path) -> None:
    """An inpainting model takes the mask and the masked image beside the latent."""
    from pipes import unet

    unet(in_channels=9).save_pretrained(copy / "unet")
    sentence(lambda: load_diffusers(copy), "takes 9 channels", "makes 4", "second input")


def test_without_transformers(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    sentence(lambda: load_diffusers(folders["sd"]), "pip install 'invdiff[latent]'")
