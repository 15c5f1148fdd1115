"""Schedules: golden values of the published tables, and what every schedule promises."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from invdiff.core import CLEAN, InvdiffError
from invdiff.core.schedules import VE, VP, VPSDE, Flow, Karras, SubVP

FULL = VP(1000, spacing="trailing")
SCHEDULES = [VP, VE, Karras, Flow, VPSDE, SubVP]


def sigma(t: int) -> float:
    """Noise level of entry t of the DDPM table; the full schedule starts with entry 999."""
    return FULL.levels()[999 - t].sigma


@pytest.mark.parametrize(
    ("t", "printed"),
    [
        (999, "157.4"),
        (990, "143.8"),
        (950, "97.1"),
        (500, "3.443"),
        (300, "1.240"),
        (0, "0.0100"),
    ],
)
def test_ddpm_table(t, printed):
    """Known to as many digits as are printed: half a unit of the last one."""
    half = 0.5 * 10.0 ** -len(printed.split(".")[1])
    assert abs(sigma(t) - float(printed)) <= half


def test_ddpm_table_ends_at_the_published_alpha_bar():
    assert abs(FULL.alpha_bars()[-1] - 4.04e-5) <= 0.005e-5
    assert abs(FULL.levels()[0].a - 0.00635) <= 0.000005


def test_cosine_table_is_the_closed_form_where_beta_is_not_capped():
    T, schedule = 1000, VP(10, betas="cosine")
    f = [math.cos((t / T + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(T + 1)]
    bars = schedule.alpha_bars()
    capped = [t for t in range(T) if 1 - f[t + 1] / f[t] > 0.999]
    assert capped == [999]
    np.testing.assert_allclose(bars[:999], np.array(f[1:1000]) / f[0], rtol=1e-11)
    assert bars[999] == pytest.approx(bars[998] * 0.001, rel=1e-11)


def test_top_leaves_the_noisier_part_of_the_table_out():
    """The grid of DDRM-JPEG; its first level is 1.149 to three decimals."""
    schedule = VP(20, top=300)
    assert schedule.indices() == list(range(285, -1, -15))
    assert schedule.levels()[0] == FULL.levels()[999 - 285]
    assert abs(schedule.levels()[0].sigma - 1.149) <= 0.0005
    assert VP(3, spacing="trailing", top=300).indices() == [299, 199, 99]
    assert VP(100, spacing="quad", top=500).indices()[0] == 499
    for spacing in ("leading", "trailing", "quad"):
        assert VP(7, spacing=spacing, top=1000) != VP(7, spacing=spacing)
        assert VP(7, spacing=spacing, top=1000).indices() == VP(7, spacing=spacing).indices()


@pytest.mark.parametrize("top", [0, -5, 1001])
def test_a_top_beyond_the_table_is_refused(top):
    with pytest.raises(InvdiffError, match=f"top lies between 1 and 1000, found {top}"):
        VP(1, top=top).levels()
    with pytest.raises(InvdiffError, match="20 steps do not fit a table of 19"):
        VP(20, top=19).levels()


def test_spacings():
    assert VP(20).indices() == list(range(950, -1, -50))
    assert VP(100).indices()[0] == 990 and VP(100).indices()[-1] == 0
    assert FULL.indices() == list(range(999, -1, -1))
    assert VP(4, spacing="trailing").indices() == [999, 749, 499, 249]
    assert VP(100, spacing="quad").indices()[:3] == [999, 899, 857]
    assert VP(100, spacing="quad").indices()[-1] == 0


@pytest.mark.parametrize(
    ("steps", "first", "last"),
    [
        (100, [999, 989, 979], [20, 10, 0]),
        (20, [999, 946, 894], [105, 53, 0]),
        (7, [999, 832, 666], [333, 166, 0]),
        (2, [999, 0], [999, 0]),
        (1, [0], [0]),
    ],
)
def test_respacing_with_both_ends(steps, first, last):
    """The lists that guided diffusion prints; halves are rounded to even."""
    grid = VP(steps, spacing="ends").indices()
    assert grid[: len(first)] == first and grid[-len(last) :] == last
    assert VP(1000, spacing="ends").levels() == FULL.levels()


def test_strides_that_do_not_divide_the_table():
    """range(0, 1000, 1000 // 30) has 31 entries up to 990, where leading has 30 up to 966."""
    assert VP(30, spacing="strided").indices() == list(range(990, -1, -33))
    assert VP(30).indices()[0] == 966 and len(VP(30).indices()) == 30
    assert VP(50, spacing="strided") != VP(50)
    assert VP(50, spacing="strided").levels() == VP(50).levels()
    assert VP(20, spacing="strided", top=300).indices() == list(range(285, -1, -15))


def test_the_grid_of_latent_diffusion():
    """1, 21, ..., 981, and then entry 0 with its noise; 1000 steps leave no room for the shift."""
    schedule = VP(50, spacing="strided", shift=1, end="first")
    assert schedule.indices() == list(range(981, 0, -20))
    assert schedule.levels()[-1] == FULL.levels()[-2] and schedule.levels()[-1] != CLEAN
    assert VP(1000, spacing="strided", shift=1).indices() == FULL.indices()


def test_an_open_end_is_the_grid_of_one_more_level():
    open_end, longer = Karras(10, 100.0, 0.1, open_end=True), Karras(11, 100.0, 0.1)
    assert open_end.levels() == [*longer.levels()[:10], CLEAN]
    assert Karras(200, 100.0, 0.1, open_end=True).levels()[-2].s == pytest.approx(0.10604, abs=5e-6)


def test_published_levels_are_of_images_on_0_to_1():
    assert VE.published(9, 348.0, 0.01, (0.0, 1.0)) == VE(9, 348.0, 0.01)
    assert VE.published(9, 348.0, 0.01) == VE(9, 696.0, 0.02)
    with pytest.raises(InvdiffError, match="no width"):
        VE.published(9, 348.0, 0.01, (-math.inf, math.inf))


@pytest.mark.parametrize("spacing", ["leading", "trailing", "quad", "ends"])
@settings(max_examples=30, deadline=None)
@given(steps=st.integers(1, 250))
def test_a_vp_path_has_as_many_steps_as_asked(spacing, steps):
    """Also where the table's length is no multiple of the steps."""
    grid = VP(steps, spacing=spacing).indices()
    assert len(grid) == len(set(grid)) == steps
    assert grid == sorted(grid, reverse=True) and 0 <= grid[-1] and grid[0] <= 999


@pytest.mark.parametrize("kind", SCHEDULES)
@settings(max_examples=20, deadline=None)
@given(steps=st.integers(1, 300))
def test_every_path_falls_to_the_clean_image(kind, steps):
    levels = kind(steps).levels()
    sigmas = [level.sigma for level in levels]
    assert len(levels) == steps + 1 and levels[-1] == CLEAN
    assert all(high > low for high, low in zip(sigmas, sigmas[1:], strict=False))
    assert all(type(v) is float for level in levels for v in (level.a, level.s))


def test_frames():
    eps = 4 * np.finfo(float).eps
    assert all(abs(v.a**2 + v.s**2 - 1) <= eps for v in VP(50).levels())
    assert all(v.a == 1 for v in VE(50).levels() + Karras(50).levels())
    assert all(abs(v.a + v.s - 1) <= eps for v in Flow(50).levels())


def test_ends_and_spacing_of_the_exploding_paths():
    ve = [v.s for v in VE(11, sigma_max=90, sigma_min=0.01).levels()[:-1]]
    np.testing.assert_allclose(np.diff(np.log(ve)), math.log(0.01 / 90) / 10, rtol=1e-12)
    karras = [v.s for v in Karras(18).levels()[:-1]]
    root = [80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7)) for i in range(18)]
    np.testing.assert_allclose(karras, np.array(root) ** 7, rtol=1e-12)
    assert ve[0] == pytest.approx(90) and karras[-1] == pytest.approx(0.002)
    assert VE(1).levels()[0].s == 100 and Karras(1).levels()[0].s == pytest.approx(80)


@pytest.mark.parametrize("kind", SCHEDULES)
def test_a_path_without_steps_is_refused(kind):
    with pytest.raises(InvdiffError, match="at least 1 step"):
        kind(0)


@pytest.mark.parametrize("spacing", ["leading", "trailing", "quad", "strided", "ends"])
def test_more_steps_than_the_table_holds_are_refused(spacing):
    with pytest.raises(InvdiffError, match="1001 steps"):
        VP(1001, spacing=spacing).levels()


def test_a_quad_grid_that_would_repeat_an_index_is_refused():
    with pytest.raises(InvdiffError, match="999 distinct"):
        VP(999, spacing="quad").levels()
