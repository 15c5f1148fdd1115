"""Published networks, converted: what options and shapes decide, and every trap that was found.

The networks are those of `golden`. A twin that is told one thing wrong is at least ten times as far
from the official numbers as the tolerance of the right one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import golden
from golden import CASES
from helpers import sentence
from invdiff.core import InvdiffError
from invdiff.priors.precond import NetworkPrior
from invdiff.priors.published import files, load, network
from invdiff.priors.published.base import Converted, Options

FAR = 1e-3
PLAIN = dict(schedule="linear", attention_order="legacy")


def converted(
    name: str, tensors: dict[str, Tensor] | None = None, pickled: Any = None, **options: Any
) -> Converted:
    """A case, converted from its tensors, or from others."""
    content = files.Content(tensors or golden.state(name), pickled or {})
    return load.convert(content, Options(**options), name)


def prior(c: Converted, label: int | None = None, edit: dict | None = None) -> NetworkPrior:
    """edit: changes the configuration of the network, for twins."""
    c.config.update(edit or {})
    return network.prior(c, network.build(c), label, True, "network", "0" * 64)


def distance(name: str, told: dict | None = None, edit: dict | None = None, **more: Any) -> float:
    """From the official x0, relative to its largest value. told: options in place of the case's."""
    options = dict(golden.options(name) if told is None else told)
    label, z = options.pop("label", None), golden.arrays(name)
    made, worst = prior(converted(name, **options, **more), label, edit), 0.0
    for sigma, want in zip(z["sigma"], torch.from_numpy(z["x0"]), strict=True):
        x = z["image"].astype(np.float64) + sigma * z["noise"].astype(np.float64)
        found = made.denoise(torch.from_numpy(x.astype(np.float32)), float(sigma))
        worst = max(worst, float((found - want).abs().max() / want.abs().max()))
        if worst > FAR:
            break
    return worst


# Every option that a case tells is one that matters

WRONG: dict[str, Any] = {
    "schedule": {"linear": "cosine", "cosine": "linear"}, "attention_order": {"legacy": "new"},
    "heads": {4: 2}, "head_channels": {32: 64}, "heads_upsample": {2: None},
    "train_steps": {4000: 1000}, "rescale_timesteps": {True: False}, "prediction": {"sample": None},
    "sde": {"vp": "subvp", "subvp": "vp", "ve-discrete": "vp-discrete", "vp-discrete": "vp"},
}  # fmt: skip
TOLD = [
    (name, option)
    for name in (
        "guided-heads4-upsample2", "guided-predict-xstart", "guided-cosine-4000-rescaled",
        "guided-three-outputs", "improved-readme-linear-4000", "scoresde-vp-ddpm",
        "scoresde-subvp-ddpmpp", "scoresde-ve-ddpm", "scoresde-vp-ddpmpp-discrete",
    )
    for option, value in CASES[name]["options"].items() if value in WRONG.get(option, ())
]  # fmt: skip


@pytest.mark.parametrize(("name", "option"), TOLD)
def test_an_option_told_wrong_is_far(name: str, option: str) -> None:
    told = golden.options(name)
    assert distance(name, told | {option: WRONG[option][told[option]]}) > FAR


def test_options_that_no_case_tells() -> None:
    """beta_max, centered, fir, skip_rescale, scale_by_sigma, sigma_data make another prior."""
    for name, more in (
        ("scoresde-vp-ddpmpp", dict(beta_max=10.0)),
        ("scoresde-vp-ddpmpp-discrete", dict(beta_max=10.0)),
        ("scoresde-vp-ddpmpp", dict(fir=True)),
        ("scoresde-vp-ddpmpp", dict(centered=False)),
        ("scoresde-vp-ddpm", dict(skip_rescale=True)),
        ("scoresde-ve-ncsnpp", dict(centered=True)),
        ("scoresde-ve-ncsnpp", dict(skip_rescale=False)),
        ("scoresde-ve-ncsnpp-discrete", dict(scale_by_sigma=False)),
        ("cm-edm-narrow", dict(sigma_data=0.6)),
        ("ddpm-sdedit", dict(prediction="v_prediction")),
        ("ddpm-sdedit", dict(schedule="cosine")),
    ):
        assert distance(name, golden.options(name) | more) > FAR, (name, more)
    ve = converted("scoresde-ve-ncsnpp", centered=True)
    assert ve.value_range == (-1.0, 1.0) and not ve.config["centre"]
    sentence(lambda: converted("scoresde-ve-ncsnpp", fir=False), "leave fir out")


@pytest.mark.parametrize(
    ("name", "edit"),
    [
        ("guided-legacy", dict(flip_sin_to_cos=False)),
        ("guided-legacy", dict(freq_shift=1)),
        ("ddpm-sdedit", dict(flip_sin_to_cos=True)),
        ("ddpm-sdedit", dict(freq_shift=0)),
        ("ddpm-sdedit", dict(downsample_padding=1)),
        ("ddpm-sdedit", dict(norm_eps=1e-2)),
        ("ddpm-sdedit", dict(head_width=16)),
        ("scoresde-ve-ncsnpp", dict(fir=(1, 1))),
        ("scoresde-ve-ffhq256", dict(fir=(1, 1))),
        ("scoresde-ve-ffhq256", dict(centre=False)),
        ("scoresde-vp-ddpm", dict(rescale=True)),
        ("edm-ncsnpp-cond", dict(fir=(1, 1))),
        ("edm-adm-cond", dict(head_width=32)),
        ("edm-adm-cond", dict(quarter_groups=False, attn_norm_num_groups=32)),
    ],
)
def test_twins_of_the_networks(name: str, edit: dict) -> None:
    """Times, paddings, filters, groups and heads as the others have them."""
    assert distance(name, edit=edit) > FAR


# guided-diffusion


def test_what_a_released_layout_settles() -> None:
    """Only whole: other outputs, attention levels or classes are another network, and asked for."""
    state = golden.shapes("guided-full-ffhq10m")
    found = converted("ffhq", state)
    assert found.trained == {"row": "eps", "schedule": "linear", "steps": 1000, "scale": 1.0}
    assert found.presumed[-1] == "as in ffhq_10m.pt" and "head_channels 64" in found.presumed
    assert "schedule cosine" not in converted("ffhq", state, schedule="cosine").presumed
    three = state | {
        "out.2.weight": state["out.2.weight"][:3], "out.2.bias": state["out.2.bias"][:3]
    }  # fmt: skip
    asked = ("heads (", "head_channels", "attention_order", "schedule", "none that was published")
    sentence(lambda: converted("ffhq", three), *asked)
    sentence(lambda: converted("ffhq", state | {"label_emb.weight": torch.ones(7, 512)}), *asked)
    attention = {k: v for k, v in state.items() if not k.startswith(LEVEL_OF_FFHQ)}
    sentence(lambda: converted("ffhq", attention), *asked)
    for name in ("guided-full-256uncond", "guided-full-512cond"):  # with and without classes
        classes = golden.shapes(name)
        assert converted(name, classes).presumed
        extra = {"label_emb.weight": torch.empty(1000, 1024, device="meta")}
        without = {k: v for k, v in classes.items() if k != "label_emb.weight"}
        assert converted(name, classes | extra).classes == 1000
        assert converted(name, without).classes == 0


LEVEL_OF_FFHQ = tuple(
    f"{side}_blocks.{n}.1.{leaf}"
    for side, n in (("input", 9), ("output", 2), ("output", 3))
    for leaf in ("norm", "qkv", "proj_out")
)


def test_what_is_left_open_is_asked_at_once() -> None:
    name = "guided-heads4"
    sentence(lambda: converted(name), "heads", "attention_order", "and schedule", "options")
    sentence(lambda: converted(name, heads=4), "attention_order", "schedule")
    sentence(lambda: converted(name, heads=4, attention_order="new"), "option schedule", "cosine")
    assert converted(name, heads=1, schedule="cosine").trained["schedule"] == "cosine"
    sentence(lambda: converted(name, heads=2, head_channels=32), "not both")
    sentence(lambda: converted(name, **PLAIN, heads=5), "5 heads")
    sentence(lambda: converted(name, **PLAIN, head_channels=32, heads_upsample=2), "heads_upsample")
    sentence(lambda: converted(name, schedule="square"), "linear, cosine", "square")
    sentence(lambda: converted(name, prediction="eps"), "epsilon, sample, v_prediction", "eps")
    sentence(lambda: converted(name, rescale_timesteps=1), "true or false", "1")


def test_middle_attention_keeps_its_norm() -> None:
    c = converted("guided-legacy", **golden.options("guided-legacy"))
    assert "mid_block.attentions.0.group_norm.weight" in c.tensors
    with pytest.raises(InvdiffError, match="group_norm"):  # what diffusers does by default
        c.config["attn_norm_num_groups"] = None
        network.build(c)


def test_learned_variance_is_cut_off() -> None:
    """Of 2 C channels the first C are eps; the last C make another denoiser."""
    name = "guided-legacy"
    state = golden.state(name)
    swapped = {k: state[k].roll(3, 0) for k in ("out.2.weight", "out.2.bias")}
    assert distance(name, tensors=state | swapped) > FAR


@pytest.mark.parametrize(("inputs", "outputs"), [(6, 6), (3, 4)])
def test_networks_with_a_second_image_are_refused(inputs: int, outputs: int) -> None:
    """The released upsamplers take the small image beside the noisy one, and look like 6 to 6."""
    state = golden.state("guided-legacy")
    first = state["input_blocks.0.0.weight"].repeat(1, 2, 1, 1)[:, :inputs]
    last = {k: state[k][:outputs] for k in ("out.2.weight", "out.2.bias")}
    changed = state | {"input_blocks.0.0.weight": first} | last
    options = golden.options("guided-legacy")
    sentence(lambda: converted("sr", changed, **options), "second image", "no denoiser")


def test_classes() -> None:
    c = converted("guided-class-cond", **PLAIN, head_channels=32)
    assert c.classes == 1000 and c.null is None
    told = golden.options("guided-class-cond")
    assert distance("guided-class-cond", told | {"label": 3}) > FAR
    sentence(lambda: network.check_label(c, None, "net"), "label", "from 0 to 999")
    sentence(lambda: network.check_label(c, 1000, "net"), "from 0 to 999")
    edm = converted("edm-ddpmpp-cond-null")
    assert edm.classes == edm.null == 10
    assert distance("edm-ddpmpp-cond-null", {"label": 3}) > FAR


def test_a_classifier_is_no_denoiser() -> None:
    state = golden.shapes("guided-full-64cond")
    half = {k: v for k, v in state.items() if not k.startswith("output_blocks.")}
    sentence(lambda: converted("classifier", half), "classifier", "no denoiser")


# DDPM, score_sde, EDM


def test_ddpm_sizes() -> None:
    c = converted("ddpm-sdedit")
    assert c.shape == (3, 32, 32) and c.presumed[:2] == ("schedule linear", "train_steps 1000")
    assert converted("ddpm-sdedit-attention-8-16").shape == (3, None, None)
    assert converted("ddpm-sdedit", size=64).shape == (3, 64, 64)


def test_the_sde_is_asked() -> None:
    name = "scoresde-vp-ddpmpp"
    sentence(lambda: converted(name), "option sde", "subvp, vp-discrete or ve-discrete")
    sentence(lambda: converted(name, sde="ve"), "positional", "ve-discrete")
    sentence(lambda: converted(name, sde="vp", scale_by_sigma=True), "leave scale_by_sigma out")
    sentence(lambda: converted("scoresde-ve-ncsnpp", sde="vp"), "leave sde out")
    assert converted(name, sde="subvp").trained == {"row": "eps_sde", "sub": True}


def test_noise_levels_are_read_from_the_file() -> None:
    name = "scoresde-ve-ncsnpp"
    c = converted(name)
    assert c.trained["sigma_max"] == pytest.approx(50) and c.value_range == (0.0, 1.0)
    assert c.trained["sigma_min"] == pytest.approx(0.01) and c.shape == (3, 32, 32)
    bare = {k: v for k, v in golden.state(name).items() if k != "sigmas"}
    sentence(lambda: converted(name, bare), "sigma_max", "348")
    assert converted(name, bare, sigma_max=9.0).trained["sigma_max"] == 9
    sentence(lambda: converted(name, bare, sigma_max=9.0, sigma_min=10.0), "do not rise")
    told = converted("scoresde-ve-ncsnpp-discrete", sde="ve-discrete").trained
    assert told["row"] == "score_discrete" and told["steps"] == 1000


def test_the_average_is_a_list_in_the_order_of_the_parameters(tmp_path) -> None:
    name = "scoresde-ve-ncsnpp"
    path = golden.written(name, tmp_path)
    got = load.convert(files.read(path), Options(), "file")
    for key, value in converted(name).tensors.items():
        torch.testing.assert_close(got.tensors[key], value, rtol=0, atol=0)
    for change in (lambda p: p.pop(0), lambda p: p.reverse()):
        broken = golden.score_sde(golden.state(name), golden.layout(name))
        change(broken["ema"]["shadow_params"])
        torch.save(broken, path)
        sentence(lambda: files.read(path), "shadow_params", "order")


def test_edm_filters_and_what_is_presumed() -> None:
    name = "edm-ncsnpp-cond"
    state = golden.state(name)
    key = next(k for k in state if k.endswith("resample_filter"))
    sentence(lambda: converted(name, state | {key: state[key] * 2}), "resample")
    assert "sigma_data 0.5" in converted(name).presumed  # bare weights
    told = converted(name, pickled={"class_name": "EDMPrecond", "sigma_data": 0.4})
    assert told.trained["sigma_data"] == 0.4
    assert not any("sigma_data" in words for words in told.presumed)


@pytest.mark.parametrize(
    ("kind", "row"),
    [("VPPrecond", "eps_sde"), ("VEPrecond", "edm_ve"), ("EDMPrecond", "edm"),
     ("iDDPMPrecond", "iddpm")],
)  # fmt: skip
def test_preconditioners_of_edm(kind: str, row: str) -> None:
    numbers = {"sigma_data": 0.5, "beta_d": 19.9, "beta_min": 0.1, "M": 1000}
    pickled = {"class_name": kind} | numbers
    assert converted("edm-ddpmpp", pickled=pickled).trained["row"] == row
    many = {"class_name": "iDDPMPrecond", "M": 2**40}
    sentence(lambda: converted("edm-ddpmpp", pickled=many), "noise levels", "fetch")
    other = {"class_name": "EDM3Precond"}
    sentence(lambda: converted("edm-ddpmpp", pickled=other), "EDM3Precond", "iDDPMPrecond")


def test_bare_weights_of_iddpm_show_their_table() -> None:
    assert distance("edm-iddpm-adm", {}) < CASES["edm-iddpm-adm"]["tolerance"]
    without = {k: v for k, v in golden.state("edm-iddpm-adm").items() if k != "u"}
    assert converted("edm-iddpm-adm", without).trained["row"] == "edm"


def test_the_table_of_iddpm() -> None:
    """The levels u_j that the official module keeps as a buffer, made in float32: an error of some
    1e-7 in u_j^2 + 1 is one of 1e-3 in the least of them."""
    u = golden.arrays("edm-iddpm-adm")["buffer:u"].astype(np.float64)
    c = converted("edm-iddpm-adm", pickled={"class_name": "iDDPMPrecond"})
    p = prior(c).precond
    assert p.sigma_max == pytest.approx(u[0], rel=1e-5)
    assert p.sigma_min == pytest.approx(u[-2], rel=2e-3)
    for j in (0, 1, 400, 998, 999):
        assert p.c_noise(float(u[j])) == len(u) - 2 - j


# Weights that are not what they should be


@pytest.mark.parametrize(
    "name",
    ["guided-legacy", "ddpm-sdedit", "scoresde-ve-ncsnpp", "scoresde-vp-ddpm", "edm-ddpmpp",
     "edm-adm-cond"],
)  # fmt: skip
def test_every_missing_extra_and_misshapen_tensor_is_one_sentence(name: str) -> None:
    """Tensors left out, cut or with one axis more; a further one; integers. Shapes alone."""
    options = golden.options(name)
    options.pop("label", None)
    state = golden.shapes(name)
    if name.startswith("scoresde-ve"):
        options["sigma_max"] = 50.0

    def attempt(changed: dict[str, Tensor]) -> None:
        network.build(converted(name, changed, **options))

    attempt(state)
    optional = ("sigmas", "resample_filter", "map_augment.weight")
    keys = [k for k in state if not k.endswith(optional)]
    for key in (keys[0], keys[-1], *keys[1 :: len(keys) // 15]):
        sentence(lambda k=key: attempt({n: v for n, v in state.items() if n != k}), ".")
    for key in keys[:: len(keys) // 4]:
        sentence(lambda k=key: attempt(state | {k: state[k][:-1]}), ".")
        sentence(lambda k=key: attempt(state | {k: state[k][None]}), ".")
    first = keys[0]
    extra = first.rpartition(".")[0] + ".another"
    sentence(lambda: attempt(state | {extra: torch.ones(3)}), "another")
    sentence(lambda: attempt(state | {first: state[first].long()}), "weights")


OTHERS = {
    "model.diffusion_model.input_blocks.0.0.weight": "from_single_file",
    "first_stage_model.encoder.conv_in.weight": "save_pretrained",
    "lora_unet_down_blocks_0.lora_down.weight": "fuse_lora",
    "quant_conv.weight": "autoencoder",
    "emb_fourier.freqs": "EDM2",
    "layer.weight": "from_k_diffusion",
}


@pytest.mark.parametrize("name", OTHERS)
def test_networks_of_others_are_told_a_way(name: str) -> None:
    sentence(lambda: converted("file", {name: torch.ones(3, 3)}), OTHERS[name])


def test_networks_of_others_known_by_two_names() -> None:
    one = torch.ones(3)
    for names, word in (
        (("model.init_conv.weight", "model.downs.0.0.block1.proj.weight"), "from_eps_model"),
        (("double_blocks.0.img_attn.qkv.weight", "single_blocks.0.linear1.weight"), "FluxPipeline"),
        (("blocks.0.adaLN_modulation.1.weight", "x_embedder.proj.weight"), "DiTPipeline"),
        (("inner_model.mapping.0.weight", "inner_model.patch_in.proj.weight"), "k-diffusion"),
        (("conv_in.weight", "time_embedding.linear_1.weight"), "config.json"),
    ):
        sentence(lambda: converted("file", dict.fromkeys(names, one)), word)  # noqa: B023
    sentence(lambda: load.convert(files.Content({}), Options(), "file"), "unknown layout")


def test_a_network_inside_of_another_module() -> None:
    """Lightning's names, an average beside live weights, two networks of which neither counts."""
    name, options = "guided-legacy", golden.options("guided-legacy")
    state = golden.state(name)
    inner = {f"net.{k}": v for k, v in state.items()} | {"loss.weight": torch.ones(2)}
    assert distance(name, tensors=inner) < CASES[name]["tolerance"]
    live = {f"model.{k}": v + 1 for k, v in state.items()}
    average = {f"ema_model.module.{k}": v for k, v in state.items()}
    assert distance(name, tensors=live | average) < CASES[name]["tolerance"]
    other = {f"other.{k}": v for k, v in state.items()}
    sentence(lambda: converted(name, live | other, **options), "several networks", "model., other.")
