"""The solver of each stored case: the official code's settings in this library's words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from golden_cases import GoldenCase

from invdiff.core.schedules import VE, VP, VPSDE, Karras
from invdiff.solvers import Solver
from invdiff.solvers.csgm import CSGM
from invdiff.solvers.daps import DAPS
from invdiff.solvers.ddnm import DDNM, DDNMPlus
from invdiff.solvers.ddrm import DDRM
from invdiff.solvers.ddrm_jpeg import DDRMJPEG
from invdiff.solvers.dds import DDS
from invdiff.solvers.diffpir import DiffPIR
from invdiff.solvers.dps import DPS
from invdiff.solvers.ilvr import ILVR
from invdiff.solvers.mcg import MCG
from invdiff.solvers.pigdm import PiGDM
from invdiff.solvers.psld import PSLD
from invdiff.solvers.reddiff import REDDiff
from invdiff.solvers.replacement import Replacement
from invdiff.solvers.score_medical import ScoreMedical, ScoreMedicalBaseline
from invdiff.solvers.score_mri import ScoreMRI
from invdiff.solvers.snips import SNIPS

Settings = dict[str, Any]
SOLVERS: dict[str, Callable[[Settings], Solver]] = {}
"""Family to the solver of its settings."""

CLIP = {True: "value", False: "off"}
WEIGHTS = {"trunc_linear": "clip", "power2over3": "two-thirds"}
PREDICTORS = {
    "AncestralSamplingPredictor": "ancestral",
    "ReverseDiffusionPredictor": "reverse-diffusion",
    "EulerMaruyamaPredictor": "euler-maruyama",
}
CORRECTORS = {
    "LangevinCorrector": "langevin",
    "AnnealedLangevinDynamics": "annealed",
    "NoneCorrector": "none",
    None: "none",
}


def family(name: str) -> Callable[[Callable[[Settings], Solver]], Callable[[Settings], Solver]]:
    """Register what makes the solvers of a family."""

    def register(make: Callable[[Settings], Solver]) -> Callable[[Settings], Solver]:
        SOLVERS[name] = make
        return make

    return register


def solver_of(case: GoldenCase) -> Solver:
    """The solver of a case."""
    return SOLVERS[case.told["family"]](case.settings)


def strided(steps: int, top: int | None = None) -> VP:
    """The grid of DDRM, DDNM, DDS and RED-diff."""
    return VP(steps, spacing="strided", top=top)


def respaced(s: Settings) -> VP:
    """The grid of guided diffusion."""
    return VP(int(s["timestep_respacing"]), spacing="ends")


def exploding(s: Settings) -> VE:
    return VE(s["N"], s["sigma_max"], s["sigma_min"])


@family("ddrm")
def ddrm(s: Settings) -> Solver:
    return DDRM(s["eta"], s["etaB"], s["last"], schedule=strided(s["timesteps"]))


@family("ddrmjpeg")
def ddrm_jpeg(s: Settings) -> Solver:
    path = strided(s["timesteps"], s["init_timestep"])
    return DDRMJPEG(s["eta"], s["etaB"], s["mix"], schedule=path)


@family("ddnm")
def ddnm(s: Settings) -> Solver:
    return DDNM(s["eta"], schedule=strided(s["T_sampling"]))


@family("ddnmplus")
def ddnm_plus(s: Settings) -> Solver:
    return DDNMPlus(s["eta"], schedule=strided(s["T_sampling"]))


@family("dds")
def dds(s: Settings) -> Solver:
    path = strided(s["T_sampling"])
    return DDS(s["gamma"], s["CG_iter"], s["eta"], end="clean", schedule=path)


@family("diffpir")
def diffpir(s: Settings) -> Solver:
    lam, clip = s["lambda_"] / 4, CLIP[s["clip_denoised"]]
    path = VP(s["iter_num"], spacing=s["skip_type"])
    return DiffPIR(lam, s["zeta"], clip=clip, final="noisy", schedule=path)


@family("dps")
def dps(s: Settings) -> Solver:
    if "num_steps" in s:  # the port in the repository of RED-diff
        path = strided(s["num_steps"])
        return DPS(s["grad_term_weight"], "l2sq", s["eta"], clip=s["clip"], schedule=path)
    loss = "poisson_official" if "noise" in s else "l2"
    variance = {"fixed_small": "lower", "learned_range": "learned"}[s["model_var_type"]]
    return DPS(
        s["scale"], loss, clip=CLIP[s["clip_denoised"]], variance=variance, schedule=respaced(s)
    )


@family("ilvr")
def ilvr(s: Settings) -> Solver:
    clip = CLIP[s["clip_denoised"]]
    return ILVR(s["range_t"] + 1, known_level="current", clip=clip, schedule=respaced(s))


@family("mcg")
def mcg(s: Settings) -> Solver:
    how = {"known_level": "current", "final": "none", "clip": CLIP[s["clip_denoised"]]}
    return MCG(rho=float(s["sample_method"] == "MCG"), schedule=respaced(s), **how)


@family("pigdm")
def pigdm(s: Settings) -> Solver:
    return PiGDM(
        s["grad_term_weight"],
        s["eta"],
        "paper",
        schedule=strided(s["num_steps"], s.get("start_step")),
    )


@family("psld")
def psld(s: Settings) -> Solver:
    betas = s["beta_start"], s["beta_end"]
    path = VP(s["S"], s["schedule"], "strided", 1000, *betas, shift=1, end="first")
    return PSLD(s["omega"], s["gamma"], s["eta"], schedule=path)


@family("reddiff")
def reddiff(s: Settings) -> Solver:
    weight = s["denoise_term_weight"]
    return REDDiff(
        s["grad_term_weight"],
        s["lr"],
        WEIGHTS.get(weight, weight),
        "official",
        s["obs_weight"],
        sigma0=s["sigma_x0"],
        init_from="guess",
        schedule=strided(s["num_steps"]),
    )


@family("replacement")
def replacement(s: Settings) -> Solver:
    vp = s.get("sde") == "vpsde"
    path = VPSDE(s["N"], s["beta_min"], s["beta_max"], s["eps"]) if vp else exploding(s)
    return Replacement(
        s.get("snr", 0.0),
        s.get("n_steps", 1),
        known_level="current",
        predictor=PREDICTORS[s["predictor"]],
        corrector=CORRECTORS[s["corrector"]],
        start="clean",
        schedule=path,
    )


@family("csgm")
def csgm(s: Settings) -> Solver:
    return CSGM.official(s["n_steps_each"])


@family("daps")
def daps(s: Settings) -> Solver:
    assert s["timestep"] == "poly-7" and s["tau"] == 0.01 and s["ode_sigma_min"] == 0.01
    path = Karras(s["num_steps"], s["sigma_max"], s["sigma_min"], open_end=True)
    return DAPS(
        "langevin",
        tau="official",
        flow_steps=s["ode_steps"],
        langevin_steps=s["langevin_steps"],
        lr=s["lr"],
        lr_min_ratio=s["lr_min_ratio"],
        schedule=path,
    )


@family("scoremedical")
def score_medical(s: Settings) -> Solver:
    return ScoreMedical(
        s["coeff_lambda"],
        s["snr"],
        s["n_steps"],
        corrector=CORRECTORS[s["corrector"]],
        predictor=PREDICTORS[s["predictor"]],
        schedule=exploding(s),
    )


@family("scoremedicalbaseline")
def score_medical_baseline(s: Settings) -> Solver:
    return ScoreMedicalBaseline(
        s["kappa"], s["snr"], s["n_steps"], PREDICTORS[s["predictor"]], schedule=exploding(s)
    )


@family("scoremri")
def score_mri(s: Settings) -> Solver:
    return ScoreMRI(
        s["snr"],
        s["n_steps"],
        predictor=PREDICTORS[s["predictor"]],
        corrector=CORRECTORS[s["corrector"]],
        final="noisy",
        order="predictor-first" if "coils" in s else "corrector-first",
        parts="apart",
        schedule=exploding(s),
    )


@family("snips")
def snips(s: Settings) -> Solver:
    path = VE(s["L"] * s["K"], s["sigma_begin"], s["sigma_end"])
    return SNIPS(s["c"], s["K"], schedule=path)
