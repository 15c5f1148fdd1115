"""Fields of dataclasses as options: their types, their texts, and what is told of wrong ones."""

import dataclasses
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image

from invdiff import fields
from invdiff.commands.common import FileOptions, PriorOptions, RunOptions
from invdiff.commands.degrade import MakeOptions
from invdiff.core import InvdiffError
from invdiff.core.option import check_ranges, option
from invdiff.tasks import TASKS, Angles, Centre, ImageSize, Kernel, Mask, NoiseLevel, Numbers
from invdiff.tasks.mri import CoilMaps


@dataclass(frozen=True, kw_only=True)
class Every:
    """One field of each type."""

    whole: int = option("a count", 1, min=0)
    number: float = option("a size", 1.0)
    word: str = option("a word", "x")
    yes: bool = option("a switch", False)
    file: Path | None = option("a file", None)
    one: Literal["red", "green", "blue"] = option("a colour", "red")
    level: NoiseLevel | None = option("a level", None)
    needed: int | None = option("what must be told")

    def __post_init__(self) -> None:
        check_ranges(self)


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("whole", "3", 3),
        ("whole", 3.0, 3),
        ("number", "1e-3", 1e-3),
        ("number", 2, 2.0),
        ("word", "", ""),
        ("word", 7, "7"),
        ("yes", "true", True),
        ("yes", False, False),
        ("file", "a/b.png", Path("a/b.png")),
        ("one", "blue", "blue"),
        ("level", "25/255", NoiseLevel("25/255")),
        ("level", 0.1, NoiseLevel("0.1")),
        ("level", "estimate", NoiseLevel("estimate")),
    ],
)
def test_a_value_is_read_from_text_and_from_python(name: str, given: Any, value: Any) -> None:
    found = getattr(fields.build(Every, {"needed": 1, name: given}, "it"), name)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("name", "given", "sentence"),
    [
        ("whole", "2.5", "--whole expects a whole number, found 2.5"),
        ("whole", 2.5, "--whole expects a whole number, found 2.5"),
        ("whole", True, "--whole expects a whole number, found True"),
        ("whole", "-1", "--whole is at least 0, found -1"),
        ("number", "much", "--number expects a number, found much"),
        ("number", "nan", "--number expects a number, found nan"),
        ("word", ["a"], "--word expects text"),
        ("yes", "maybe", "--yes expects true or false, found maybe"),
        ("one", "gren", "--one is red, green or blue, found gren; did you mean green?"),
        ("one", "q", r"--one is red, green or blue, found q\.$"),
        ("level", "much", "--noise expects a number, as 0.1 or 25/255"),
        ("wholes", "1", "--wholes does not belong to it, which takes --needed, --whole,"),
    ],
)
def test_a_wrong_value_is_one_sentence(name: str, given: Any, sentence: str) -> None:
    with pytest.raises(InvdiffError, match=sentence):
        fields.build(Every, {"needed": 1, name: given}, "it")


def test_none_is_not_told_and_names_may_have_hyphens() -> None:
    with pytest.raises(InvdiffError, match="it needs --needed: what must be told"):
        fields.build(Every, {"needed": None}, "it")
    assert fields.build(Every, {"needed": 1, "whole": None}, "it").whole == 1
    assert list(fields.options(Every))[0] == "needed"
    cs = fields.build(TASKS["compressed-sensing"], {"pattern-seed": "3"}, "it")
    assert cs == TASKS["compressed-sensing"](pattern_seed=3)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (NoiseLevel, "0.1"),
        (NoiseLevel, "25/255"),
        (NoiseLevel, "correlated"),
        (Numbers, "masks.npy"),
        (CoilMaps, "espirit"),
        (Kernel, "gaussian:2"),
        (Kernel, "motion:9,30"),
        (Mask, "box:1,2,3,4"),
        (Mask, "random:0.5"),
        (ImageSize, "64x48"),
        (Angles, "0,180"),
        (Angles, "-90,90"),
        (Centre, "estimate"),
        (Centre, "-1.5"),
    ],
)
def test_text_goes_there_and_back(kind: Any, text: str) -> None:
    """What is written into commands and YAML files is read as the same value."""
    value = kind.parse(text)
    assert str(value) == text
    again = kind.parse(str(value))
    assert str(again) == text and (again == value or text == "estimate")
    assert fields.convert(kind, text, "x") == value or text == "estimate"
    assert fields.convert(kind | None, value, "x") is value


def test_python_values_stand_for_options() -> None:
    picture = Image.fromarray(np.eye(5, dtype=np.uint8) * 255)
    kernel = fields.convert(Kernel, np.ones((3, 3)), "kernel").at((9, 9))
    assert torch.allclose(kernel, torch.full((3, 3), 1 / 9, dtype=torch.float64))
    assert fields.convert(Kernel, picture, "kernel").at((9, 9))[0, 0] == pytest.approx(0.2)
    known = fields.convert(Mask, np.eye(5), "mask").at((5, 5))
    assert torch.equal(known, 1 - torch.eye(5)[None, None])
    assert torch.equal(fields.convert(Mask, picture, "mask").at((5, 5)), known)
    assert fields.convert(ImageSize, (48, 64), "size") == ImageSize.parse("64x48")
    assert fields.convert(Angles, (0, 180), "angles").read() == (0.0, 180.0)
    assert np.array_equal(fields.convert(Angles, [1, 2, 4], "angles").read(), [1, 2, 4])
    assert fields.convert(Centre, 1.5, "center").bins == 1.5
    assert np.array_equal(fields.convert(Numbers, np.arange(3), "masks").read(), np.arange(3))


def owners() -> list[type]:
    """Every class whose fields are options."""
    found = [*TASKS.values(), *(t.simulation() for t in TASKS.values())]
    return [*(c for c in found if c), RunOptions, PriorOptions, FileOptions, MakeOptions]


@pytest.mark.parametrize("cls", owners(), ids=lambda cls: cls.__name__)
def test_options_have_plain_types(cls: type) -> None:
    """No union but `X | None`, a default of None only where None may stand, and help."""
    hints = typing.get_type_hints(cls)
    for name, field in fields.options(cls).items():
        hint = hints[name]
        union = typing.get_origin(hint) in (typing.Union, types.UnionType)
        assert not union or set(typing.get_args(hint)) == {fields.kind(hint), type(None)}
        assert field.default is not None or union, name
        kind = fields.kind(hint)
        value_class = hasattr(kind, "parse") and dataclasses.is_dataclass(kind)
        assert kind in fields.PLAIN or typing.get_origin(kind) is Literal or value_class, name
        assert field.metadata["help"] and not field.metadata["help"].endswith("."), name


def test_another_union_is_refused() -> None:
    """The negative twin."""
    with pytest.raises(TypeError, match="write a value class"):
        fields.kind(int | str)
    with pytest.raises(TypeError):
        fields.kind(int | str | None)
