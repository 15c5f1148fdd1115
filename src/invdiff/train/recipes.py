"""The recipes of the priors that come with invdiff."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from invdiff.core import InvdiffError
from invdiff.priors.photo_net import PhotoNetConfig
from invdiff.priors.units import HU_WINDOW
from invdiff.train.recipe import Recipe

PHOTO = Recipe(
    name="photo",
    net=PhotoNetConfig(blocks=(5, 5, 4), up_blocks=(5, 4)),
    p_mean=-1.8,
    steps=7350,
    lr=2.5e-4,
    grad_clip=1.5,
    exclude=("cloth-",),
    hold_out=("cid22-", "clic-"),
    attribution=(
        "Trained on free-software desktop wallpapers (CC0, CC-BY, CC-BY-SA and Unsplash licences; "
        "projects Budgie, elementary OS, deepin, Cutefish, Solus, MATE, Ubuntu MATE, Pop!_OS), the "
        "training part of CID22 (Cloudinary Image Dataset '22, CC-BY-SA-4.0) and photographs of "
        "CLIC 2025 (Unsplash licence). Weights trained on CC-BY-SA images are offered under "
        "CC-BY-SA-4.0."
    ),
    limits="What a face or a house is, it does not know, and it cannot invent what a large hole "
    "held.",
)

HEADS = (
    "Slices of 128 x 128 pixels (T1, contrast-enhanced T1, T2, FLAIR; three orientations; many "
    "with tumours; a few are CT), 8-bit from JPEG. The collection is named CC0 at second hand, "
    "which is unconfirmed."
)
PATIENTS = "Slices of one patient may be on both sides of the hold-out rule."

BRAIN = Recipe(
    name="brain",
    net=PhotoNetConfig(
        channels=2,
        widths=(32, 64, 128, 160),
        blocks=(3, 3, 3, 2),
        up_blocks=(3, 3, 2),
        embedding=64,
        sigma_data=0.18,
    ),
    about=(
        "complex MR images of the head, of any size but meant for about 128 x 128 pixels that show "
        "the whole head. The channels are the real and the imaginary part; the magnitude is on "
        "[0, 1], so both lie on [-1, 1]"
    ),
    attribution=(
        f"{HEADS} The files are magnitudes: the phase is synthetic, a random constant plus a "
        f"random polynomial of degree 3, drawn anew whenever an image is used. {PATIENTS}"
    ),
    limits=(
        "The magnitudes are rounded, compressed and were windowed for viewing, some with a small "
        "inscription: this is no measured MR data. It is not for diagnosis. Samples that it draws "
        "without a measurement (50 steps) are heads with a skull and smooth phases, but blurred "
        "and wrong anatomy within."
    ),
    mode="L",
    hold_out=("",),
    hold_out_one_in=50,
    validation=128,
    halves=0.0,
    symmetries="mirror",
    become="complex images",
    p_mean=-2.0,
    patch=128,
    batch=12,
    steps=8000,
    warmup=200,
    grad_clip=1.5,
)

MAGNITUDE = replace(
    BRAIN,
    name="brain-magnitude",
    net=PhotoNetConfig(
        channels=1,
        widths=(32, 64, 128, 160),
        blocks=(2, 3, 3, 2),
        up_blocks=(2, 3, 2),
        embedding=64,
        sigma_data=0.76,
    ),
    about=(
        "magnitudes of MR images of the head, of any size but meant for about 128 x 128 pixels "
        "that show the whole head, on [-1, 1], black being -1"
    ),
    attribution=f"{HEADS} {PATIENTS}",
    limits=(
        "The magnitudes are rounded, compressed and were windowed for viewing, some with a small "
        "inscription: this is no measured MR data. For k-space take `brain`, whose images are "
        "complex. It is not for diagnosis. Samples that it draws without a measurement (50 steps) "
        "are heads with a skull and coarse anatomy, blurred and wrong in its details."
    ),
    become="",
    p_mean=-1.2,
    steps=6000,
)

FASHION_MNIST = (
    "Fashion-MNIST (Xiao, Rasul and Vollgraf 2017, arXiv 1708.07747; Zalando SE; MIT licence), the "
    "60,000 images of its training part"
)

ITEMS: dict[str, Any] = dict(
    mode="L", key="train", hold_out_last=1000, validation=28, validated=200, halves=0.0,
    symmetries="none", p_mean=-0.8, patch=28, lr=5e-4, grad_clip=1.5,
)  # fmt: skip
"""How a prior of items of Fashion-MNIST is trained."""

FASHION = Recipe(
    name="fashion28",
    net=PhotoNetConfig(
        channels=1,
        widths=(48, 96),
        blocks=(2, 3),
        up_blocks=(2,),
        embedding=64,
        sigma_data=0.78,
    ),
    about=(
        "grey images of 28 x 28 pixels of clothes, shoes and bags (Fashion-MNIST), on [-1, 1], "
        "black being -1. It is small and smooth (SiLU is its only nonlinearity), so that densities "
        "can be computed by its probability-flow ODE"
    ),
    attribution=f"Trained on {FASHION_MNIST}.",
    limits=(
        "It was not told the classes. Most of its samples without a measurement (50 steps) are "
        "clear items, some with blotched texture; about one in ten is no item at all."
    ),
    shape=(1, 28, 28),
    **ITEMS,
    batch=96,
    steps=4000,
    warmup=100,
)

MOVING = Recipe(
    name="moving-fashion",
    net=PhotoNetConfig(
        channels=8,
        widths=(96, 144, 192),
        blocks=(3, 2, 2),
        up_blocks=(3, 2),
        embedding=96,
        sigma_data=0.93,
    ),
    about=(
        "clips (1, 8, 32, 32) (channel, frames, height, width), on [-1, 1], in which one or two "
        "small grey items of Fashion-MNIST (14 x 14 pixels) move on black at constant speeds of up "
        "to 2.5 pixels a frame, straight on, and bounce off the borders. The 8 frames are "
        "channels of a network for images"
    ),
    attribution=(
        f"The items are from {FASHION_MNIST}; the clips are synthetic and drawn anew in every step "
        "(two items make one clip)."
    ),
    limits=(
        "It knows this toy world only, in clips of 8 frames, and no real video. Its samples "
        "without a measurement (50 steps) move steadily, and many a frame looks like a shoe, a "
        "shirt or trousers, but the form changes on the way."
    ),
    shape=(1, 8, 32, 32),
    **ITEMS,
    become="moving clips",
    batch=64,
    steps=7500,
    warmup=200,
)

PORTRAITS: dict[str, Any] = dict(
    hold_out=("",), hold_out_one_in=50, validation=64, validated=100, halves=0.0,
    symmetries="mirror", patch=64, batch=32, warmup=200, grad_clip=1.5,
)  # fmt: skip
"""How a prior of portraits is trained."""

MULTISCALE = Recipe(
    name="multiscale",
    net=PhotoNetConfig(
        channels=3,
        widths=(64, 96, 144),
        blocks=(2, 2, 3),
        up_blocks=(2, 2),
        embedding=96,
        sigma_data=0.5,
        located=True,
    ),
    about=(
        "RGB portraits, on [-1, 1], at 64 x 64, 32 x 32 and 16 x 16 pixels, one network for all: "
        "beside the image it sees the cosine and the sine of each pixel's place in the frame, "
        "which the prior computes from the image's own height and width. It is meant for "
        "coarse-to-fine sampling; other sizes are possible and were not trained"
    ),
    attribution=(
        "Portraits of members of the US Congress, 64 x 64 pixels, WebP; the smaller ones are their "
        "block means. They are public portraits, largely in the public domain; the collection "
        "names no licence. About two thirds are black and white, few show women, and some are "
        "engravings or paintings: the prior has this bias."
    ),
    limits=(
        "It knows official portraits, face-on and centred, and little else; it must not be used to "
        "identify anyone. Its samples without a measurement (50 steps) are faces, plausible at 16 "
        "and 32 pixels; at 64 they are soft, with smeared, uneven or missing eyes and mouths."
    ),
    **PORTRAITS,
    scales=(1, 2, 4),
    steps=11_000,
)

FACES = Recipe(
    name="faces64",
    net=PhotoNetConfig(
        channels=3,
        widths=(64, 128, 192, 256),
        blocks=(2, 3, 3, 2),
        up_blocks=(2, 3, 2),
        embedding=128,
        sigma_data=0.5,
    ),
    about="RGB portraits of 64 x 64 pixels, on [-1, 1]",
    attribution=(
        "Portraits of members of the US Congress, 64 x 64 pixels, WebP. They are public portraits, "
        "largely in the public domain; the collection names no licence. About two thirds are black "
        "and white, few show women, and some are engravings or paintings: the prior has this bias."
    ),
    limits=(
        "It knows official portraits, face-on and centred, and little else; it must not be used to "
        "identify anyone. Its samples without a measurement (50 steps) are faces with eyes, nose "
        "and mouth in their places, some of them soft, uneven or half dissolved."
    ),
    shape=(3, 64, 64),
    **PORTRAITS,
    p_mean=-1.0,
    steps=7000,
)

CT = Recipe(
    name="ct",
    net=PhotoNetConfig(
        channels=1,
        widths=(32, 64, 96, 112),
        blocks=(2, 2, 2, 2),
        up_blocks=(2, 2, 2),
        embedding=64,
        sigma_data=0.74,
    ),
    about=(
        "axial CT slices of the chest and the belly, of any size but meant for 256 x 256 or "
        f"128 x 128 pixels. {HU_WINDOW[0]:g} to {HU_WINDOW[1]:g} Hounsfield units become -1 to 1 "
        "(`hu_to_x`, `x_to_hu`); values beyond were clipped"
    ),
    attribution=(
        "CT slices of 256 x 256 pixels from The Cancer Imaging Archive (TCIA), CC-BY-3.0, in "
        "Hounsfield units. The set has 80 slices, five of which are copies of others. It names no "
        "patients, and the order is random, so slices of one patient may be on both sides of the "
        "hold-out rule."
    ),
    limits=(
        "67 slices are few: it knows what tissue, air, bone and the table look like, and cannot be "
        "relied on for anything rare. It is not for diagnosis. It was trained on pieces: its "
        "samples without a measurement (50 steps, 256 x 256) have tissue, lung texture and sharp "
        "borders, but no body."
    ),
    mode="L",
    key="hu",
    window=HU_WINDOW,
    hold_out_last=10,
    p_mean=-1.2,
    patch=128,
    batch=12,
    steps=9000,
    warmup=200,
    grad_clip=1.5,
)

RECIPES = {r.name: r for r in (PHOTO, BRAIN, MAGNITUDE, FASHION, MOVING, MULTISCALE, FACES, CT)}


def recipe(name: str) -> Recipe:
    """The recipe called name. Raises InvdiffError when there is none."""
    if name not in RECIPES:
        raise InvdiffError(f"There is no recipe called {name!r}; known are {', '.join(RECIPES)}.")
    return RECIPES[name]
