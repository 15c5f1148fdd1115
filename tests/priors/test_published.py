"""Published networks, converted: the same numbers as the originals, and every trap that was found.

Tolerance: both sides compute in float32 what is the same function; 1e-5 of the largest value is
some hundred units of round-off, and every negative twin is at least a hundred times as far away.
"""

from __future__ import annotations

import pytest
import torch
from originals import Adm, Ddpm, EdmDhariwal, EdmSong, Ncsnpp, scrambled
from torch import Tensor, nn

from invdiff.core import InvdiffError
from invdiff.priors.published import files, load, network
from invdiff.priors.published.base import Converted, Options

CLOSE, FAR = 1e-5, 1e-3
ADM = dict(schedule="linear", heads=1)
T = 417.25


def sentence(call: object, *words: str) -> None:
    """call raises InvdiffError: one line, one full stop at its end, with these words in it."""
    with pytest.raises(InvdiffError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text and text.endswith(".") and ". " not in text, text
    for word in words:
        assert word in text, (word, text)


def images(n: int = 16, channels: int = 3, seed: int = 1) -> Tensor:
    return torch.randn(2, channels, n, n, generator=torch.Generator().manual_seed(seed))


def converted(net: nn.Module, pickled: dict | None = None, **options: object) -> Converted:
    content = files.Content(net.state_dict(), pickled or {})
    return load.convert(content, Options(**options), "weights")


def distance(
    net: nn.Module,
    x: Tensor,
    time: float = T,
    label: int | None = None,
    by: float = 1.0,
    pickled: dict | None = None,
    edit: object = None,
    **options: object,
) -> float:
    """Largest difference of original and converted network, relative to the largest value.

    by: what the original divides its output by. edit: changes the configuration, for twins.
    """
    c = converted(net, pickled, **options)
    if edit:
        c.config.update(edit)
    t = torch.full((len(x),), time)
    want = (net(x, t) if label is None else net(x, t, label)) * by
    inside = torch.log(t) if c.trained["row"] == "score" else t
    made = network.Labelled(network.build(c), 1, label)
    return float((made(x, inside) - want).abs().max() / want.abs().max())


# guided-diffusion


@pytest.mark.parametrize(
    ("shape", "heads"),
    [
        (dict(), 1),
        (dict(mult=(1, 2, 2), blocks=2, attention=(1, 2)), 1),
        (dict(mult=(1, 1, 2), attention=(2,), shifts=False, updown=False), 1),
        (dict(mult=(1, 2), heads=4), 4),
        (dict(mult=(1, 2, 3), attention=(0, 2)), 1),
        (dict(base=64, mult=(0.5, 1, 2), attention=(2,)), 1),
        (dict(channels=1, out=1), 1),
        (dict(channels=1, out=2), 1),
        (dict(updown=False, heads=2), 2),
    ],
)
def test_guided_diffusion(shape: dict, heads: int) -> None:
    net = scrambled(Adm(**shape))
    order = "legacy" if heads > 1 else None
    x = images(16, shape.get("channels", 3))
    options = dict(schedule="linear", heads=heads, attention_order=order)
    assert distance(net, x, **options) < CLOSE


@pytest.mark.parametrize("order", ["legacy", "new"])
def test_order_of_q_k_v(order: str) -> None:
    """Two heads: right in its own order, wrong in the other."""
    net = scrambled(Adm(heads=2, order=order))
    other = {"legacy": "new", "new": "legacy"}[order]
    x = images()
    assert distance(net, x, schedule="linear", heads=2, attention_order=order) < CLOSE
    assert distance(net, x, schedule="linear", heads=2, attention_order=other) > FAR


def test_fixed_number_of_heads_and_fixed_width() -> None:
    """heads=2 at widths 64 and 128, and heads of 32 channels, are different networks."""
    shape = dict(base=32, mult=(2, 4), attention=(0, 1))
    fixed = scrambled(Adm(**shape, heads=2))
    wide = scrambled(Adm(**shape, heads=lambda width: width // 32))
    more = dict(schedule="linear", attention_order="legacy")
    x = images(8)
    assert distance(fixed, x, heads=2, **more) < CLOSE
    assert distance(wide, x, head_channels=32, **more) < CLOSE
    assert distance(fixed, x, head_channels=32, **more) > FAR
    assert distance(wide, x, heads=2, **more) > FAR


def test_middle_attention_keeps_its_norm() -> None:
    net, x = scrambled(Adm()), images()
    with torch.no_grad():
        net.middle_block[1].norm.weight.mul_(3)
    assert distance(net, x, **ADM) < CLOSE
    c = converted(net, **ADM)
    assert "mid_block.attentions.0.group_norm.weight" in c.tensors
    with pytest.raises(InvdiffError, match="group_norm"):  # what diffusers does by default
        c.config["attn_norm_num_groups"] = None
        network.build(c)


def test_learned_variance_is_cut_off() -> None:
    """Of 2 C channels the first C are eps; the last C make another denoiser."""
    net, x, sigma = scrambled(Adm()), images(), 1.3
    c = converted(net, **ADM)
    prior = network.prior(c, network.build(c), None, False, "adm", "0" * 64)
    p = prior.precond
    t = torch.full((2,), p.c_noise(sigma))
    out = net(p.c_in(sigma) * x, t)
    torch.testing.assert_close(
        prior.denoise(x, sigma), x - sigma * out[:, :3], rtol=1e-4, atol=1e-4
    )
    assert not torch.allclose(prior.denoise(x, sigma), x - sigma * out[:, 3:], atol=1e-2)


@pytest.mark.parametrize("shape", [dict(channels=6, out=6), dict(channels=3, out=4)])
def test_networks_with_a_second_image_are_refused(shape: dict) -> None:
    """The released upsamplers take the small image beside the noisy one, and look like 6 to 6."""
    sentence(lambda: converted(Adm(**shape), **ADM), "second image", "no denoiser")


def test_classes_of_guided_diffusion() -> None:
    net, x = scrambled(Adm(classes=5)), images()
    assert distance(net, x, label=3, **ADM) < CLOSE
    c = converted(net, **ADM)
    assert c.classes == 5 and c.null is None
    a, b = (network.Labelled(network.build(c), 1, k)(x, torch.full((2,), T)) for k in (3, 4))
    assert (a - b).abs().max() > FAR
    sentence(lambda: network.check_label(c, None, "net"), "label", "from 0 to 4")
    sentence(lambda: network.check_label(c, 5, "net"), "from 0 to 4")


def test_time_of_guided_diffusion_is_not_that_of_ddpm() -> None:
    """Cosines first and rates that stop before 1e-4; DDPM has sines first and reaches it."""
    net, x = scrambled(Adm()), images()
    for wrong in (dict(flip_sin_to_cos=False), dict(freq_shift=1)):
        assert distance(net, x, edit=wrong, **ADM) > FAR


def test_what_a_released_layout_settles() -> None:
    """The shapes of the released files choose betas, heads, order and size; others must be told."""
    from invdiff.priors.published.adm import PUBLISHED

    got = {
        key[:2]: (v.size, v.schedule, v.order, v.heads, v.head_width)
        for key, v in PUBLISHED.items()
        if key[3]
    }
    assert got[192, (1, 2, 3, 4)] == (64, "cosine", "new", None, 64)
    assert got[256, (1, 1, 2, 3, 4)] == (128, "linear", "legacy", 4, None)
    assert got[256, (1, 1, 2, 2, 4, 4)] == (256, "linear", "legacy", None, 64)
    assert got[256, (0.5, 1, 1, 2, 2, 4, 4)] == (512, "linear", "legacy", None, 64)
    assert got[128, (1, 1, 2, 2, 4, 4)] == (256, "linear", "legacy", None, 64)
    net = Adm(heads=2)
    sentence(lambda: converted(net), "heads", "head_channels", "give the option")
    sentence(lambda: converted(net, heads=2), "q, k and v", "attention_order", "legacy or new")
    sentence(lambda: converted(net, heads=2, attention_order="new"), "schedule", "cosine")
    sentence(lambda: converted(net, heads=2, head_channels=32), "not both")
    sentence(lambda: converted(net, heads=5, attention_order="new", schedule="linear"), "5 heads")
    sentence(lambda: converted(net, schedule="square"), "linear, cosine", "square")
    assert converted(net, heads=1, schedule="cosine").trained["schedule"] == "cosine"


# DDPM


@pytest.mark.parametrize(
    "shape",
    [
        dict(),
        dict(mult=(1, 1, 2), blocks=2, attention=(1,)),
        dict(channels=1),
        dict(mult=(1, 2, 2), attention=(0, 2)),
    ],
)
def test_ddpm(shape: dict) -> None:
    assert distance(scrambled(Ddpm(**shape)), images(16, shape.get("channels", 3))) < CLOSE


def test_ddpm_pads_below_and_to_the_right() -> None:
    x = images()
    assert distance(scrambled(Ddpm(pad=(1, 0, 1, 0))), x) > FAR
    for wrong in (
        dict(flip_sin_to_cos=True),
        dict(freq_shift=0),
        dict(downsample_padding=1),
        dict(norm_eps=1e-2),
    ):
        assert distance(scrambled(Ddpm()), x, edit=wrong) > FAR, wrong


def test_ddpm_has_one_head() -> None:
    net, x = scrambled(Ddpm()), images()
    assert distance(net, x, edit=dict(head_width=16)) > FAR
    assert converted(net).shape == (3, 32, 32)  # attention at the second level, where it is 16 x 16
    assert converted(net).trained == {"row": "eps", "schedule": "linear", "steps": 1000}
    assert converted(Ddpm(attention=(0, 1))).shape == (3, None, None)
    assert converted(net, size=64).shape == (3, 64, 64)


# score_sde

SKIP = dict(pyramid="skip", output_skip=True)
PLAIN = dict(
    fourier=False, pyramid="none", taps=(1, 1), centered=True, by_sigma=False, attention=(1,)
)


@pytest.mark.parametrize(
    "shape",
    [
        dict(),
        dict(mult=(1, 2, 2), blocks=2),
        dict(**SKIP, mult=(1, 1, 2)),
        dict(**SKIP, channels=1),
        dict(channels=2, attention=(0,)),
    ],
)
def test_ncsnpp(shape: dict) -> None:
    """Fourier times, FIR, input and output pyramids; ours is sigma times the score."""
    net = scrambled(Ncsnpp(**shape))
    x = images(16, shape.get("channels", 3))
    assert distance(net, x, time=3.7, by=3.7) < CLOSE


@pytest.mark.parametrize("more", [dict(), dict(pyramid="residual", taps=(1, 3, 3, 1))])
@pytest.mark.parametrize("sde", ["vp", "subvp"])
def test_ddpmpp(sde: str, more: dict) -> None:
    net, x = scrambled(Ncsnpp(**(PLAIN | more))), images()
    assert distance(net, x, sde=sde) < CLOSE
    sentence(lambda: converted(net), "vp or subvp", "option sde")
    assert converted(net, sde=sde).trained == {"row": "eps_sde", "sub": sde == "subvp"}


def test_twins_of_score_sde() -> None:
    x = images()
    for shape in (dict(), SKIP):
        net = scrambled(Ncsnpp(**shape))
        for wrong in (dict(fir=(1, 1)), dict(centre=False)):
            assert distance(net, x, time=3.7, by=3.7, edit=wrong) > FAR, wrong
        assert distance(net, x, time=3.7) > FAR  # without the division by sigma


def test_noise_levels_are_read_from_the_file() -> None:
    c = converted(Ncsnpp(sigmas=(0.02, 348.0)))
    assert c.trained["sigma_max"] == pytest.approx(348) and c.value_range == (0.0, 1.0)
    assert c.trained["sigma_min"] == pytest.approx(0.02) and c.shape == (3, 32, 32)
    net = Ncsnpp()
    del net.sigmas
    sentence(lambda: converted(net), "sigma_max", "348")
    assert converted(net, sigma_max=50.0).trained["sigma_max"] == 50
    sentence(lambda: converted(net, sde="vp"), "leave sde out")


def checkpoint(net: Ncsnpp, average: Ncsnpp) -> dict:
    """What score_sde writes, DataParallel's prefix included."""
    shadow = [p.clone() for n, p in average.named_parameters() if n != "all_modules.0.W"]
    state = {f"module.{k}": v for k, v in net.state_dict().items()}
    ema = {"decay": 0.999, "num_updates": 7, "shadow_params": shadow}
    return {"optimizer": {}, "model": state, "ema": ema, "step": 7}


def test_the_average_is_a_list_in_the_order_of_the_parameters(tmp_path) -> None:
    path = tmp_path / "checkpoint_8.pth"
    now, mean = scrambled(Ncsnpp(), 1), scrambled(Ncsnpp(), 2)
    with torch.no_grad():
        mean.all_modules[0].W.copy_(now.all_modules[0].W)  # fixed, and not in the list
    torch.save(checkpoint(now, mean), path)
    got = load.convert(files.read(path), Options(), "file")
    for name, value in converted(mean).tensors.items():
        torch.testing.assert_close(got.tensors[name], value, rtol=0, atol=0)
    assert not torch.equal(got.tensors["conv_in.weight"], converted(now).tensors["conv_in.weight"])
    broken = checkpoint(now, mean)
    broken["ema"]["shadow_params"].pop(0)
    torch.save(broken, path)
    sentence(lambda: files.read(path), "shadow_params", "order")
    broken = checkpoint(now, mean)
    broken["ema"]["shadow_params"].reverse()
    torch.save(broken, path)
    sentence(lambda: files.read(path), "shadow_params", "order")


# EDM


@pytest.mark.parametrize(
    "shape",
    [
        dict(),
        dict(mult=(1, 2, 2), blocks=2),
        dict(fourier=True, encoder="residual", taps=(1, 3, 3, 1)),
        dict(mult=(2, 2, 2), fourier=True, encoder="residual", taps=(1, 3, 3, 1)),
        dict(encoder="skip", taps=(1, 3, 3, 1)),
        dict(channels=1, augment=0),
    ],
)
def test_edm_song(shape: dict) -> None:
    """DDPM++ and NCSN++ as EDM trained them, with its own time, ln(sigma) / 4."""
    net, x = scrambled(EdmSong(16, **shape)), images(16, shape.get("channels", 3))
    assert distance(net, x, time=-0.8, sigma_data=0.5) < CLOSE
    c = converted(net, {"class_name": "EDMPrecond", "sigma_data": 0.4})
    assert c.trained["sigma_data"] == 0.4 and c.shape[1:] == (16, 16)
    sentence(lambda: converted(net), "sigma_data", "0.5")


@pytest.mark.parametrize("classes", [0, 4])
def test_edm_dhariwal(classes: int) -> None:
    net, x = scrambled(EdmDhariwal(16, classes=classes, attention=(0, 1))), images()
    label = 2 if classes else None
    assert distance(net, x, time=0.3, label=label, sigma_data=0.5) < CLOSE
    c = converted(net, sigma_data=0.5)
    assert c.net == "UNet2DModel" and c.classes == classes
    if classes:  # the label beyond the last one is a row of zeros: no class
        t = torch.full((2,), 0.3)
        found = network.Labelled(network.build(c), 1, c.null)(x, t)
        torch.testing.assert_close(found, net(x, t), rtol=1e-4, atol=1e-4)


def test_twins_of_edm() -> None:
    """Its q, k, v are interleaved, its heads have 64 channels, its images are augmented by 0."""
    x = images()
    net = scrambled(EdmDhariwal(16, augment=9))
    assert distance(net, x, time=0.3, sigma_data=0.5) < CLOSE
    assert distance(net, x, time=0.3, sigma_data=0.5, heads=1) > FAR
    assert (
        distance(
            net,
            x,
            time=0.3,
            sigma_data=0.5,
            edit=dict(quarter_groups=False, attn_norm_num_groups=32),
        )
        > FAR
    )
    song = scrambled(EdmSong(16, fourier=True, encoder="residual", taps=(1, 3, 3, 1)))
    assert distance(song, x, time=0.3, sigma_data=0.5, edit=dict(fir=(1, 1))) > FAR
    state = song.state_dict()
    name = next(k for k in state if k.endswith("resample_filter"))
    state[name] = state[name] * 2
    sentence(
        lambda: load.convert(files.Content(state), Options(sigma_data=0.5), "file"), "resample"
    )


def test_classes_of_edm_song() -> None:
    net, x, t = scrambled(EdmSong(16, classes=10)), images(), torch.full((2,), 0.3)
    assert distance(net, x, time=0.3, label=7, sigma_data=0.5) < CLOSE
    c = converted(net, sigma_data=0.5)
    assert (c.classes, c.null) == (10, 10)
    found = network.Labelled(network.build(c), 1, 10)(x, t)
    torch.testing.assert_close(found, net(x, t), rtol=1e-4, atol=1e-4)
    assert (found - net(x, t, 7)).abs().max() > FAR


@pytest.mark.parametrize(
    ("kind", "row"), [("VPPrecond", "eps_sde"), ("VEPrecond", "edm_ve"), ("EDMPrecond", "edm")]
)
def test_preconditioners_of_edm(kind: str, row: str) -> None:
    pickled = {"class_name": kind, "sigma_data": 0.5, "beta_d": 19.9, "beta_min": 0.1, "M": 1000}
    assert converted(EdmSong(16), pickled).trained["row"] == row
    sentence(lambda: converted(EdmSong(16), {"class_name": "iDDPMPrecond"}), "iDDPMPrecond")


# Weights that are not what they should be

NETS = {
    "adm": (Adm, ADM),
    "ddpm": (Ddpm, {}),
    "score_sde": (Ncsnpp, {}),
    "song": (lambda: EdmSong(16), dict(sigma_data=0.5)),
    "dhariwal": (lambda: EdmDhariwal(16), dict(sigma_data=0.5)),
}


@pytest.mark.parametrize("name", NETS)
def test_every_missing_extra_and_misshapen_tensor_is_one_sentence(name: str) -> None:
    """Each tensor left out, every fifth cut or with one axis more; a further one; integers."""
    make, options = NETS[name]
    state = make().state_dict()

    def attempt(changed: dict[str, Tensor]) -> None:
        c = load.convert(files.Content(changed), Options(**options), "file.pt")
        network.build(c)

    attempt(state)
    optional = ("sigmas", "resample_filter", "map_augment.weight")
    keys = [k for k in state if not k.endswith(optional)]
    for key in keys:
        sentence(lambda k=key: attempt({n: v for n, v in state.items() if n != k}), ".")
    for key in keys[::5]:
        sentence(lambda k=key: attempt(state | {k: state[k][:-1]}), ".")
        sentence(lambda k=key: attempt(state | {k: state[k][None]}), ".")
    first = next(iter(state))
    sentence(lambda: attempt(state | {"another.weight": torch.ones(3)}), "another.weight")
    sentence(lambda: attempt(state | {first: state[first].long()}), first)
    sentence(lambda: attempt({"layer.weight": torch.ones(3, 3)}), "unknown layout", "layer.weight")
    sentence(lambda: attempt({}), "unknown layout")


# Whole released networks, as shapes alone


def per_64(width: int) -> int:
    return width // 64


FULL = (1, 1, 2, 2, 4, 4)
EDM = dict(sigma_data=0.5)
RELEASED = {
    "ImageNet 256": (lambda: Adm(256, FULL, 2, (3, 4, 5), per_64), {}, (3, 256), 552.8),
    "ImageNet 64": (
        lambda: Adm(192, (1, 2, 3, 4), 3, (1, 2, 3), per_64, "new", classes=1000),
        {}, (3, 64), 295.9,
    ),
    "ImageNet 128": (
        lambda: Adm(256, (1, 1, 2, 3, 4), 2, (2, 3, 4), 4, classes=1000), {}, (3, 128), 421.5
    ),
    "ImageNet 512": (
        lambda: Adm(256, (0.5, *FULL), 2, (4, 5, 6), per_64, classes=1000), {}, (3, 512), 559.0
    ),
    "FFHQ of DPS": (lambda: Adm(128, FULL, 1, (4,), per_64), {}, (3, 256), 93.6),
    "improved 64": (
        lambda: Adm(128, (1, 2, 3, 4), 3, (2, 3), 4, updown=False), {}, (3, 64), 121.1
    ),
    "improved CIFAR-10": (
        lambda: Adm(128, (1, 2, 2, 2), 3, (1, 2), 4, updown=False), {}, (3, 32), 52.5
    ),
    "improved LSUN": (
        lambda: Adm(128, FULL, 2, (4,), 1, updown=False, shifts=False), {}, (3, 256), 113.7
    ),
    "DDPM CelebA-HQ": (lambda: Ddpm(128, FULL, 2, (4,)), {}, (3, 256), 113.7),
    "DDPM CIFAR-10": (lambda: Ddpm(128, (1, 2, 2, 2), 2, (1,)), {}, (3, 32), 35.7),
    "DDPM++": (lambda: Ncsnpp(128, (1, 2, 2, 2), 4, **PLAIN), dict(sde="vp"), (3, 32), 61.8),
    "NCSN++ FFHQ": (
        lambda: Ncsnpp(128, (1, 1, 2, 2, 2, 2, 2), 2, (4,), **SKIP), dict(sigma_max=348.0),
        (3, 256), 65.6,
    ),
    "NCSN++ CIFAR-10": (
        lambda: Ncsnpp(128, (1, 2, 2, 2), 4, (1,)), dict(sigma_max=50.0), (3, 32), 62.8
    ),
    "EDM CIFAR-10": (lambda: EdmSong(32, 128, (2, 2, 2), 4, (1,)), EDM, (3, 32), 55.7),
    "EDM FFHQ": (lambda: EdmSong(64, 128, (1, 2, 2, 2), 4, (2,)), EDM, (3, 64), 61.8),
    "EDM ImageNet 64": (
        lambda: EdmDhariwal(64, 192, (1, 2, 3, 4), 3, (1, 2, 3), classes=1000), EDM, (3, 64), 295.9
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RELEASED)
def test_released_layouts_need_no_option_that_they_settle(name: str) -> None:
    """Size and number of parameters (in millions) of the released networks."""
    make, options, (channels, size), millions = RELEASED[name]
    with torch.device("meta"):
        net = make()
    state = {k: v for k, v in net.state_dict().items() if k != "sigmas"}
    for key in (k for k in state if k.endswith("resample_filter")):
        state[key] = torch.full((1, 1, 2, 2), 0.25)  # the one constant that is read
    c = load.convert(files.Content(state), Options(**options), name)
    assert c.shape == (channels, size, size)
    found = sum(p.numel() for p in network.build(c).parameters()) / 1e6
    assert found == pytest.approx(millions, abs=0.06)
