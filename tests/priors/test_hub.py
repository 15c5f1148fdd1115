"""Published diffusers models as priors: every form of saving, every prediction, every mistake."""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
    LCMScheduler,
    PNDMScheduler,
    ScoreSdeVeScheduler,
    UNet2DModel,
    UniPCMultistepScheduler,
)
from huggingface_hub.errors import RepositoryNotFoundError
from safetensors.torch import load_file, save_file

from helpers import sentence
from invdiff.audit.distance import UNCHANGED
from invdiff.core import CLEAN, Level
from invdiff.core.schedules import VP
from invdiff.noise import GaussianNoise
from invdiff.operators.algebra import Identity
from invdiff.operators.algebra.decoded import decoded
from invdiff.operators.inpaint import Inpaint
from invdiff.operators.jpeg import JPEG
from invdiff.priors.base import Prior, eps_from
from invdiff.priors.hub import load_diffusers
from invdiff.priors.load import load_prior
from invdiff.priors.schedules import DISTILLED
from invdiff.problem import Problem
from invdiff.sampling.needs import Need, missing
from invdiff.sampling.run import solve
from invdiff.sampling.steps import ddim
from invdiff.solvers import registry

SAFE, BIN = "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"
PREDICTIONS = ("epsilon", "v_prediction", "sample")


def tiny(**changes: object) -> UNet2DModel:
    """A network of two levels for 3 x 16 x 16 images, all of whose weights are random."""
    config: dict[str, object] = dict(
        sample_size=16,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
    )
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        net = UNet2DModel(**(config | changes))
        for p in net.parameters():
            p.add_(0.1 * torch.randn(p.shape))
    return net.eval().requires_grad_(False)


def save(folder: Path, net: UNet2DModel, scheduler: object = None, safe: bool = True) -> Path:
    """A bare network, with the scheduler's file beside it if there is one."""
    net.save_pretrained(folder, safe_serialization=safe)
    if scheduler is not None:
        scheduler.save_pretrained(folder)
    return folder


def noise(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=dtype)


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline folder that predicts eps. Tests must not change it."""
    folder = tmp_path_factory.mktemp("model") / "pipe"
    DDPMPipeline(tiny(), DDPMScheduler()).save_pretrained(folder)
    return folder


@pytest.fixture
def copy(model: Path, tmp_path: Path) -> Path:
    """A copy of it, to be broken."""
    return Path(shutil.copytree(model, tmp_path / "pipe"))


# What is loaded


def by_hand(net: UNet2DModel, kind: str, x: torch.Tensor, bar: float, t: int) -> torch.Tensor:
    """E[x0 | x] at index t from the definitions of eps, v and x0, with x_t = a x."""
    a, s = math.sqrt(bar), math.sqrt(1 - bar)
    with torch.no_grad():
        out = net(a * x, t).sample[:, : x.shape[1]]
    return {"epsilon": (a * x - s * out) / a, "v_prediction": a * a * x - s * out, "sample": out}[
        kind
    ]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("kind", PREDICTIONS)
@pytest.mark.parametrize("form", ["bare", "bin", "pipeline", "flat", "half variance"])
def test_output_is_the_network_called_by_hand(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], form: str, kind: str, dtype: torch.dtype
) -> None:
    net = tiny(out_channels=6) if form == "half variance" else tiny()
    scheduler = DDPMScheduler(prediction_type=kind, beta_schedule="squaredcos_cap_v2")
    if form in ("pipeline", "flat"):
        DDPMPipeline(net, scheduler).save_pretrained(tmp_path)
    else:
        save(tmp_path, net, scheduler, safe=form != "bin")
    if form == "flat":  # all files in one folder, as google/ddpm-cat-256 has them
        for part in ("unet", "scheduler"):
            for file in (tmp_path / part).iterdir():
                file.rename(tmp_path / file.name)
            (tmp_path / part).rmdir()
    prior = load_diffusers(tmp_path, dtype=dtype)
    assert capfd.readouterr() == ("", "")
    assert (prior.shape, prior.value_range, prior.name) == ((3, 16, 16), (-1, 1), str(tmp_path))
    net = net.to(dtype)
    for t in (0, 317, 990):
        bar = float(scheduler.alphas_cumprod[t])
        sigma = math.sqrt((1 - bar) / bar)
        x = (1 + sigma) * noise(2, 3, 16, 16).to(dtype)
        want = by_hand(net, kind, x, bar, t)
        # rounding of c_in x and of time, through a network whose gain is of order 1 here
        tolerance = 1e3 * torch.finfo(dtype).eps * float(x.abs().max())
        torch.testing.assert_close(prior.denoise(x, sigma), want, rtol=0, atol=tolerance)
        assert (want - x).abs().max() > 1e-4  # the network does something


@pytest.mark.parametrize("kind", PREDICTIONS)
def test_exact_for_the_network_of_a_gaussian(tmp_path: Path, kind: str) -> None:
    """With the network that is right for N(0, tau^2), the prior is its denoiser, at any frame."""
    scheduler, tau = DDPMScheduler(prediction_type=kind), 0.7
    bars = scheduler.alphas_cumprod.double()
    prior = load_diffusers(save(tmp_path, tiny(), scheduler), dtype=torch.float64)

    def ideal(xt: torch.Tensor, time: torch.Tensor, labels: None) -> SimpleNamespace:
        t = int(time[0].round())
        assert abs(float(time[0]) - t) < 1e-6 and labels is None
        a, s = float(bars[t].sqrt()), float((1 - bars[t]).sqrt())
        x0 = a * tau**2 / (a**2 * tau**2 + s**2) * xt
        eps = (xt - a * x0) / s
        return SimpleNamespace(
            sample={"epsilon": eps, "v_prediction": a * eps - s * x0, "sample": x0}[kind]
        )

    prior.net.net.forward = ideal
    for t in (0, 500, 999):
        sigma = float(((1 - bars[t]) / bars[t]).sqrt())
        x = noise(2, 3, 16, 16)
        want = tau**2 / (tau**2 + sigma**2) * x
        torch.testing.assert_close(prior.denoise(x, sigma), want, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(prior.x0(0.3 * x, Level(0.3, 0.3 * sigma)), want)


def test_sigma_range_is_that_of_the_table(tmp_path: Path) -> None:
    save(tmp_path, tiny(), DDIMScheduler())
    prior = load_diffusers(tmp_path)
    levels = VP(1000).levels()
    assert prior.sigma_min == pytest.approx(levels[-2].sigma, rel=1e-3)
    assert prior.sigma_max == pytest.approx(levels[0].sigma, rel=1e-3)
    save(tmp_path, tiny(), DDIMScheduler(rescale_betas_zero_snr=True))
    assert 100 < load_diffusers(tmp_path).sigma_max < math.inf


def test_other_schedulers_with_a_table(tmp_path: Path) -> None:
    x = noise(1, 3, 16, 16).float()
    want = load_diffusers(save(tmp_path, tiny(), DDPMScheduler())).denoise(x, 1.5)
    save(tmp_path, tiny(), EulerDiscreteScheduler(beta_start=1e-4, beta_end=0.02))
    torch.testing.assert_close(load_diffusers(tmp_path).denoise(x, 1.5), want)


def test_tables_whose_last_entry_is_patched(tmp_path: Path) -> None:
    """Every scheduler with a table and an option for no signal at its end, whatever it puts there:
    one prior, which is that of the entries before."""
    import diffusers

    kinds = [
        cls
        for name in dir(diffusers)
        if name.endswith("Scheduler") and isinstance(cls := getattr(diffusers, name), type)
        and "rescale_betas_zero_snr" in inspect.signature(cls.__init__).parameters
    ]  # fmt: skip
    assert len(kinds) >= 6
    unet, found = save(tmp_path, tiny()), set()
    for cls in kinds:
        for beta in ("linear", "scaled_linear"):
            told = dict(beta_start=1e-4, beta_end=0.02, beta_schedule=beta)
            told |= {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
            try:
                scheduler = cls(**told)
            except NotImplementedError:
                continue
            if not hasattr(scheduler, "alphas_cumprod") or cls.__name__ in DISTILLED:
                continue
            scheduler.save_pretrained(unet)
            prior = load_diffusers(unet)
            assert 100 < prior.sigma_max < 1e5, cls
            shifted = cls.__name__.startswith("CogVideoX")  # their signal is scaled
            found.add((beta, shifted, round(prior.sigma_max, 2)))
    assert len(found) == 4, found


def test_a_folder_without_scheduler_takes_options(tmp_path: Path) -> None:
    x, sigma = noise(1, 3, 16, 16).float(), 1.5
    bare = save(tmp_path / "bare", tiny())
    full = save(tmp_path / "full", tiny(), DDPMScheduler(beta_schedule="squaredcos_cap_v2"))
    told = load_prior(bare, prediction="epsilon", schedule="cosine", check=False)
    want = load_diffusers(full).denoise(x, sigma)
    torch.testing.assert_close(told.denoise(x, sigma), want, rtol=1e-4, atol=1e-4)
    assert not told.presumed
    told = load_prior(bare, prediction="epsilon", check=False)
    assert told.presumed == ("schedule linear", "train_steps 1000")
    sentence(lambda: load_prior(bare, check=False), "scheduler_config.json", "prediction")
    sentence(lambda: load_prior(full, prediction="sample"), "leave the option prediction out")
    sentence(lambda: load_prior(bare, heads=2), "leave the option heads out")


def test_prediction_and_betas_of_the_caller(tmp_path: Path) -> None:
    x, sigma = noise(1, 3, 16, 16).float(), 1.5
    bare = save(tmp_path / "bare", tiny())
    full = save(tmp_path / "full", tiny(), DDPMScheduler())
    told = load_diffusers(bare, prediction="epsilon")
    torch.testing.assert_close(told.denoise(x, sigma), load_diffusers(full).denoise(x, sigma))
    betas = np.linspace(1e-3, 0.05, 100)
    kinds = [load_diffusers(f, prediction="sample", betas=betas) for f in (bare, full)]
    bars = np.cumprod(1 - betas)
    want = by_hand(tiny(), "sample", x, float(bars[60]), 60)
    for prior in kinds:
        at = math.sqrt((1 - bars[60]) / bars[60])
        torch.testing.assert_close(prior.denoise(x, at), want, rtol=1e-3, atol=1e-4)
    assert len({p.fingerprint for p in (told, *kinds)}) == 2


def test_first_files_that_predict_x0(tmp_path: Path) -> None:
    save(tmp_path, tiny(), DDPMScheduler())
    path = tmp_path / "scheduler_config.json"
    config = json.loads(path.read_text())
    del config["prediction_type"]
    path.write_text(json.dumps(config | {"predict_epsilon": False}))
    x, bar = noise(1, 3, 16, 16).float(), float(DDPMScheduler().alphas_cumprod[200])
    got = load_diffusers(tmp_path).denoise(x, math.sqrt((1 - bar) / bar))
    torch.testing.assert_close(got, by_hand(tiny(), "sample", x, bar, 200), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_edm_as_its_scheduler_computes_it(tmp_path: Path, kind: str) -> None:
    scheduler = EDMEulerScheduler(sigma_data=0.6, sigma_max=70.0, prediction_type=kind)
    prior = load_diffusers(save(tmp_path, tiny(), scheduler), dtype=torch.float64)
    net, x = tiny().double(), noise(2, 3, 16, 16)
    for sigma in (0.01, 1.0, 60.0):
        with torch.no_grad():
            time = scheduler.precondition_noise(torch.tensor([sigma], dtype=torch.float64))
            out = net(scheduler.precondition_inputs(x, sigma), time).sample
        want = scheduler.precondition_outputs(x, out, sigma)
        torch.testing.assert_close(prior.denoise(x, sigma), want, rtol=1e-6, atol=1e-6)
    assert (prior.sigma_min, prior.sigma_max) == (0.002, 70.0)


def test_score_of_an_exploding_model(tmp_path: Path) -> None:
    net = tiny(time_embedding_type="fourier", center_input_sample=True)
    prior = load_diffusers(save(tmp_path, net, ScoreSdeVeScheduler()), dtype=torch.float64)
    assert prior.value_range == (0.0, 1.0) and prior.sigma_max == 1348.0
    x, sigma = noise(2, 3, 16, 16), 3.0
    with torch.no_grad():
        score = net.double()(x, torch.tensor(sigma, dtype=torch.float64)).sample
    torch.testing.assert_close(prior.denoise(x, sigma), x + sigma**2 * score)
    torch.testing.assert_close(prior.score(x, Level(1.0, sigma)), score)


def test_classes(tmp_path: Path) -> None:
    net = tiny(num_class_embeds=5)
    save(tmp_path, net, DDPMScheduler())
    x, t = noise(2, 3, 16, 16), 400
    bar = float(DDPMScheduler().alphas_cumprod[t])
    sigma = math.sqrt((1 - bar) / bar)
    priors = [load_diffusers(tmp_path, class_label=k, dtype=torch.float64) for k in (0, 4)]
    for prior, k in zip(priors, (0, 4), strict=True):
        with torch.no_grad():
            out = net.double()(math.sqrt(bar) * x, t, torch.tensor([k, k])).sample
        torch.testing.assert_close(prior.denoise(x, sigma), x - sigma * out)
    assert priors[0].fingerprint != priors[1].fingerprint
    sentence(lambda: load_diffusers(tmp_path), "class-conditional", "class_label")
    sentence(lambda: load_diffusers(tmp_path, class_label=-1), "class_label")
    sentence(lambda: load_diffusers(tmp_path, class_label=5), "from 0 to 4")
    guided = load_diffusers(
        tmp_path, class_label=0, null_label=4, guidance=2.5, dtype=torch.float64
    )
    told, plain = (p.denoise(x, sigma) for p in priors)
    torch.testing.assert_close(guided.denoise(x, sigma), plain + 2.5 * (told - plain))
    assert guided.fingerprint not in [p.fingerprint for p in priors]
    wrong = {"class_label": 0, "guidance": 2.0}
    sentence(lambda: load_diffusers(tmp_path, **wrong), "null_label", "from 0 to 4")
    wrong = {"class_label": 0, "null_label": 4}
    sentence(lambda: load_diffusers(tmp_path, **wrong), "null_label", "give guidance")
    sentence(lambda: load_prior(tmp_path, label=0, null_label=4), "null_label", "give guidance")


def test_guidance_needs_something_to_guide(model: Path) -> None:
    sentence(lambda: load_diffusers(model, guidance=2.0), "neither", "leave guidance out")
    sentence(lambda: load_diffusers(model, prompt="a cat"), "reads no text", "leave prompt")


@pytest.mark.parametrize(
    "cls",
    [DDIMScheduler, PNDMScheduler, DPMSolverMultistepScheduler, DEISMultistepScheduler,
     UniPCMultistepScheduler, HeunDiscreteScheduler, EulerAncestralDiscreteScheduler],
)  # fmt: skip
def test_samplers_of_one_training_give_one_prior(tmp_path: Path, cls: type) -> None:
    """Which sampler a model was saved with says nothing of how it was trained."""
    x, betas = noise(1, 3, 16, 16).float(), dict(beta_start=1e-4, beta_end=0.02)
    for kind in ("epsilon", "v_prediction"):
        trained = DDPMScheduler(prediction_type=kind, beta_schedule="scaled_linear", **betas)
        want = load_diffusers(save(tmp_path / "ddpm", tiny(), trained)).denoise(x, 1.5)
        scheduler = cls(prediction_type=kind, beta_schedule="scaled_linear", **betas)
        got = load_diffusers(save(tmp_path / "other", tiny(), scheduler)).denoise(x, 1.5)
        torch.testing.assert_close(got, want)


# Flows


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_a_step_of_a_flow_is_that_of_its_scheduler(tmp_path: Path, shift: float) -> None:
    """From our denoiser, a DDIM step on (1 - t, t) is diffusers' Euler step, whatever the shift."""
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    prior = load_diffusers(save(tmp_path, tiny(), scheduler), dtype=torch.float64)
    net, x = tiny().double(), noise(2, 3, 16, 16)
    scheduler.set_timesteps(6)
    for i in range(1, 6):  # the first step starts from pure noise, at an infinite sigma
        t, to = float(scheduler.sigmas[i]), float(scheduler.sigmas[i + 1])
        with torch.no_grad():
            out = net(x, scheduler.timesteps[i]).sample
        scheduler._step_index = i
        want = scheduler.step(out, scheduler.timesteps[i], x).prev_sample
        level = Level(1 - t, t)
        x0 = prior.x0(x, level)
        got = ddim(x0, eps_from(x, x0, level), level, Level(1 - to, to), x, 0.0)
        # diffusers steps in float32
        torch.testing.assert_close(got, want.double(), rtol=0, atol=1e-5)
    assert prior.value_range == (-1.0, 1.0)


def test_exact_for_the_flow_of_a_gaussian(tmp_path: Path) -> None:
    """With the velocity that is right for N(0, tau^2), the prior is its denoiser."""
    save(tmp_path, tiny(), FlowMatchEulerDiscreteScheduler())
    prior, tau = load_diffusers(tmp_path, dtype=torch.float64), 0.7

    def ideal(xt: torch.Tensor, time: torch.Tensor, labels: None) -> SimpleNamespace:
        t = float(time[0]) / 1000
        x0 = (1 - t) * tau**2 / ((1 - t) ** 2 * tau**2 + t**2) * xt
        return SimpleNamespace(sample=(xt - (1 - t) * x0) / t - x0)

    prior.net.net.forward = ideal
    for sigma in (1e-3, 0.5, 30.0, 1e4):
        x = noise(2, 3, 16, 16)
        want = tau**2 / (tau**2 + sigma**2) * x
        torch.testing.assert_close(prior.denoise(x, sigma), want, rtol=1e-9, atol=1e-9)


def test_learned_times_are_whole_numbers(tmp_path: Path) -> None:
    net = tiny(time_embedding_type="learned", num_train_timesteps=1000)
    prior = load_diffusers(save(tmp_path, net, DDPMScheduler()))
    x = noise(1, 3, 16, 16).float()
    for sigma in (1e-3, 1.0, 1e4):  # the ends lie beyond the table
        assert prior.denoise(x, sigma).isfinite().all()


def test_sizes(tmp_path: Path) -> None:
    save(tmp_path / "fixed", tiny(in_channels=1, out_channels=1), DDPMScheduler())
    save(tmp_path / "oblong", tiny(sample_size=(16, 24)), DDPMScheduler())
    save(tmp_path / "free", tiny(sample_size=None), DDPMScheduler())
    assert load_diffusers(tmp_path / "fixed").shape == (1, 16, 16)
    assert load_diffusers(tmp_path / "oblong").shape == (3, 16, 24)
    assert load_diffusers(tmp_path / "free").shape == (3, None, None)
    prior = load_diffusers(tmp_path / "fixed", any_size=True)
    assert prior.shape == (1, None, None)
    assert prior.denoise(torch.zeros(1, 1, 10, 14), 1.0).shape == (1, 1, 10, 14)
    sentence(lambda: prior.denoise(torch.zeros(1, 1, 9, 14), 1.0), "multiples of 2", "9 x 14")


def test_fingerprint_starts_with_the_hash_of_the_file(model: Path, copy: Path) -> None:
    prior, file = load_diffusers(model), model / "unet" / SAFE
    assert prior.fingerprint[:16] == hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    assert len(prior.fingerprint) == 25
    assert load_diffusers(copy).fingerprint == prior.fingerprint
    tensors = load_file(copy / "unet" / SAFE)
    tensors["conv_out.bias"][0] += 1e-3
    save_file(tensors, copy / "unet" / SAFE)
    assert load_diffusers(copy).fingerprint[:16] != prior.fingerprint[:16]


@pytest.mark.parametrize("safe", [True, False])
@pytest.mark.parametrize("split", [False, True])
def test_half_precision_files_alone(
    model: Path, tmp_path: Path, split: bool, safe: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    size = "10KB" if split else "10GB"
    tiny().half().save_pretrained(
        tmp_path, variant="fp16", max_shard_size=size, safe_serialization=safe
    )
    assert not (tmp_path / (SAFE if safe else BIN)).exists()
    capfd.readouterr()
    prior, x = load_diffusers(tmp_path, prediction="epsilon"), noise(1, 3, 16, 16).float()
    assert capfd.readouterr() == ("", "")
    want = load_diffusers(model).denoise(x, 2.0)
    assert 0 < (prior.denoise(x, 2.0) - want).abs().max() < 0.02 * want.abs().max()
    whole = tiny()
    with torch.no_grad():
        whole.conv_out.bias.add_(1.0)
    whole.save_pretrained(tmp_path)  # files of full precision count before them
    other = load_diffusers(tmp_path, prediction="epsilon").denoise(x, 2.0)
    assert (other - want).abs().max() > 1


def test_split_weights(model: Path, tmp_path: Path) -> None:
    net = tiny()
    net.save_pretrained(tmp_path, max_shard_size="10KB")
    assert len(list(tmp_path.glob("*-of-*.safetensors"))) > 1
    prior, x = load_diffusers(tmp_path, prediction="epsilon"), noise(1, 3, 16, 16).float()
    torch.testing.assert_close(prior.denoise(x, 2.0), load_diffusers(model).denoise(x, 2.0))


# What it is for


@pytest.fixture(scope="module")
def prior(model: Path) -> Prior:
    return load_diffusers(model)


@pytest.mark.parametrize("name", registry())
def test_every_solver_runs_on_it(model: Path, prior: Prior, name: str) -> None:
    """Coarse-to-fine sampling needs a model that takes other sizes than its own."""
    prior = load_diffusers(model, any_size=True) if name == "pyramid" else prior
    solver, ran = registry()[name]().with_steps(3), 0
    A = Inpaint.box((16, 16), 4, 4, 8, 8)
    A = decoded(A, UNCHANGED) if solver.always_needs(Need.AUTOENCODER) else A
    A = JPEG(30) if solver.always_needs(Need.CELLS) else A
    A = Identity() if solver.always_needs(Need.ISOMETRY) else A
    truth = noise(1, 3, 16, 16).float().clamp(-1, 1)
    # the row sums of tmpd are no covariance where an untrained network correlates pixels at random
    for sigma in (0.0, 50.0 if name == "tmpd" else 0.05):
        y = A(truth + sigma * noise(1, 3, 16, 16).float())
        problem = Problem(y, A, GaussianNoise(sigma), (3, 16, 16))
        if not missing(solver, problem, prior):
            result = solve(problem, prior, solver, samples=2)
            assert result.samples.shape == (1, 2, 3, 16, 16)
            assert result.samples.isfinite().all()
            assert result.config["prior"]["fingerprint"] == prior.fingerprint
            ran += 1
    assert ran, f"{name} ran on no problem"


def test_gradients(prior: Prior) -> None:
    """pull is the transpose of the derivative: <v, J u> by differences equals <J^T v, u>."""
    prior.net.double()
    try:
        x, u = noise(1, 3, 16, 16), noise(1, 3, 16, 17)[..., 1:]
        level, h = Level(0.8, 0.6), 1e-5
        x0, pull = prior.x0_vjp(x, level)
        with torch.no_grad():
            ju = (prior.x0(x + h * u, level) - prior.x0(x - h * u, level)) / (2 * h)
        assert float((pull(x) * u).sum()) == pytest.approx(float((x * ju).sum()), rel=1e-6)
        assert not x0.requires_grad and torch.equal(prior.x0(x, CLEAN), x)
    finally:
        prior.net.float()


# What is refused, in one sentence


def test_folders_and_files(model: Path, copy: Path, tmp_path: Path) -> None:
    sentence(lambda: load_diffusers(tmp_path / "none"), "There is no file or folder")
    sentence(lambda: load_diffusers("none"), "no file or folder")
    sentence(lambda: load_diffusers(model / "model_index.json"), "is no folder")
    sentence(lambda: load_diffusers(tmp_path), "which has a config.json")
    (copy / "unet" / "config.json").write_text("{ broken")
    sentence(lambda: load_diffusers(copy), "config.json", "JSON")
    (copy / "unet" / "config.json").write_text("[1, 2]")
    sentence(lambda: load_diffusers(copy), "config.json", "JSON")
    (copy / "unet" / "config.json").unlink()
    sentence(lambda: load_diffusers(copy), "config.json is missing")


def test_pipelines_of_another_kind(copy: Path) -> None:
    edit(copy / "model_index.json", vae=["diffusers", "AutoencoderKL"])
    sentence(lambda: load_diffusers(copy), "is a DDPMPipeline, which is not supported")
    edit(copy / "model_index.json", vae=[None, None])
    load_diffusers(copy)
    edit(copy / "model_index.json", unet=[None, None])
    sentence(lambda: load_diffusers(copy), "no unet")


def test_networks_of_another_kind(copy: Path) -> None:
    config = copy / "unet" / "config.json"
    edit(config, _class_name="UNet2DConditionModel")
    sentence(lambda: load_diffusers(copy), "UNet2DConditionModel", "only UNet2DModel stands alone")
    edit(config, _class_name="UNet2DModel", in_channels=6)
    sentence(lambda: load_diffusers(copy), "6 channels into 3")
    for embed in ("identity", "timestep"):
        edit(config, in_channels=3, class_embed_type=embed)
        sentence(lambda: load_diffusers(copy), embed, "classes are numbers")
    edit(config, class_embed_type=None)
    sentence(lambda: load_diffusers(copy, class_label=1), "knows no classes")
    edit(config, time_embedding_type="fourier")
    sentence(lambda: load_diffusers(copy), "fourier times", "not supported")


def test_schedulers_that_are_not_stated_or_not_known(copy: Path) -> None:
    bare, path = copy / "unet", copy / "scheduler" / "scheduler_config.json"
    sentence(lambda: load_diffusers(bare), "scheduler_config.json", "prediction", "v_prediction")
    sentence(lambda: load_diffusers(bare, betas=[0.1, 0.2]), "prediction")
    sentence(lambda: load_diffusers(bare, prediction="eps"), "prediction must be epsilon")
    sentence(lambda: load_diffusers(bare, prediction="sample", betas=[0.1, -0.2]), "alpha_bars")
    edit(path, prediction_type="flow_prediction")
    sentence(lambda: load_diffusers(copy), "flow_prediction", "not supported")
    LCMScheduler().save_pretrained(path.parent)
    sentence(lambda: load_diffusers(copy), "Scheduler", "not supported", "DDPMScheduler")
    for scheduler in (EDMEulerScheduler(), FlowMatchEulerDiscreteScheduler()):
        scheduler.save_pretrained(path.parent)
        sentence(lambda: load_diffusers(copy, prediction="sample"), "leave prediction and betas")
    edit(path, _class_name="NoSuchScheduler")
    sentence(lambda: load_diffusers(copy), "NoSuchScheduler", "give another")
    DDPMScheduler().save_pretrained(path.parent)
    edit(path, beta_schedule="no such schedule")
    sentence(lambda: load_diffusers(copy), "DDPMScheduler", "NotImplementedError")
    path.write_text("")
    sentence(lambda: load_diffusers(copy), "scheduler_config.json", "JSON")


def test_weights_that_are_missing_truncated_or_of_another_model(copy: Path) -> None:
    unet, good = copy / "unet", (copy / "unet" / SAFE).read_bytes()
    for broken in (good[:-100], good[:10], b"", b"version https://git-lfs.github.com/spec/v1\n"):
        (unet / SAFE).write_bytes(broken)
        sentence(lambda: load_diffusers(copy), SAFE, "truncated", "fetch the model again")
    tensors = load_file(_write(unet / SAFE, good))
    bias = tensors.pop("conv_out.bias")
    save_file(tensors, unet / SAFE)
    sentence(lambda: load_diffusers(copy), "1 tensors are missing and 0 have no place")
    save_file(tensors | {"conv_out.bias": bias, "extra": torch.ones(2)}, unet / SAFE)
    sentence(lambda: load_diffusers(copy), "0 tensors are missing and 1 have no place")
    save_file(tensors | {"conv_out.bias": torch.zeros(4)}, unet / SAFE)
    sentence(lambda: load_diffusers(copy), "do not fit config.json")
    _write(unet / SAFE, good)
    edit(unet / "config.json", down_block_types=["NoSuchBlock", "DownBlock2D"])
    sentence(lambda: load_diffusers(copy), "do not fit config.json")
    (unet / SAFE).unlink()
    sentence(lambda: load_diffusers(copy), "has no weights", SAFE, BIN)


def _write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


class Evil:
    """Creates a file when it is unpickled without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


def test_no_code_runs_from_a_weight_file(tmp_path: Path) -> None:
    save(tmp_path, tiny(), DDPMScheduler(), safe=False)
    torch.save({"conv_out.bias": Evil(tmp_path / "ran")}, tmp_path / BIN)
    sentence(lambda: load_diffusers(tmp_path), BIN, "cannot be loaded")
    assert not (tmp_path / "ran").exists()


def test_import_of_diffusers(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    sentence(lambda: load_diffusers(model), "pip install diffusers")

    class Broken(ModuleType):
        def __getattr__(self, name: str) -> object:
            raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setitem(sys.modules, "diffusers", Broken("diffusers"))
    sentence(lambda: load_diffusers(model), "torchvision does not match this torch; uninstall it")


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    code = (
        "import invdiff.priors.hub, sys; assert not {'diffusers', 'accelerate'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# The hub


def test_folders_are_loaded_without_the_network(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    load_diffusers(model)
    monkeypatch.chdir(model.parent.parent)
    load_diffusers(f"{model.parent.name}/{model.name}")  # a local path that looks like a hub name
    for spec in (
        "google/ddpm-cat-256",
        Path("google/ddpm-cat-256"),
        Path("hf:google/ddpm-cat-256"),
    ):
        sentence(lambda spec=spec: load_diffusers(spec), "There is no file or folder")


@pytest.mark.parametrize("layout", ["pipeline", "flat", "bin"])
def test_a_name_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str) -> None:
    """Only the files that are needed are asked for, safetensors before .bin."""
    remote, cache, asked = tmp_path / "remote", tmp_path / "cache", []
    if layout == "pipeline":
        DDPMPipeline(tiny(), DDPMScheduler()).save_pretrained(remote)
        save(remote / "unet", tiny(), safe=False)
    else:
        save(remote, tiny(), DDPMScheduler(), safe=layout == "flat")
    (remote / "README.md").write_text("not needed")

    def download(name: str, allow_patterns: list[str]) -> str:
        assert name == "owner/a-model.v1"
        for path in remote.rglob("*"):
            inside = path.relative_to(remote)
            if any(Path("/", inside).match(f"/{p}") for p in allow_patterns) and path.is_file():
                asked.append(inside.as_posix())
                (cache / inside).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, cache / inside)
        return str(cache)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    prior = load_diffusers("hf:owner/a-model.v1")
    assert prior.name == "hf:owner/a-model.v1" and prior.shape == (3, 16, 16)
    at = {"pipeline": ("unet/", "scheduler/"), "flat": ("", ""), "bin": ("", "")}[layout]
    want = {f"{at[0]}config.json", f"{at[1]}scheduler_config.json"}
    want |= {f"{at[0]}{BIN if layout == 'bin' else SAFE}"}
    assert set(asked) == want | ({"model_index.json"} if layout == "pipeline" else set())
    local = load_diffusers(remote).fingerprint
    assert prior.fingerprint == local


def test_a_hub_that_cannot_be_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    name = "hf:google/ddpm-cat-256"
    sentence(lambda: load_diffusers(name), name, "did not answer", "network", "folder")


def test_a_hub_without_that_model(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(RepositoryNotFoundError):
        def __init__(self) -> None:
            pass

    def download(name: str, allow_patterns: list[str]) -> str:
        raise Gone()

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    sentence(lambda: load_diffusers("hf:owner/none"), "no such model", "hf auth login")
