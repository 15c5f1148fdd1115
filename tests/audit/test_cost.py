"""The part `cost` of an audit: what is counted is what was called, and held."""

from __future__ import annotations

import pytest
import torch

from invdiff.audit import cost, plots, tables
from invdiff.operators import AveragePool
from invdiff.solvers import registry

STEPS = 4


def solver(name: str, **knobs: object):
    return registry()[name](**knobs).with_steps(STEPS)


@pytest.mark.parametrize(
    ("name", "evaluations", "gradients", "forward", "back", "inverse"),
    [
        ("unconditional", STEPS, 0, 0, 0, 0),
        ("dps", STEPS, STEPS, STEPS, STEPS, 0),  # A x and A^T (y - A x) at each step
        ("pigdm", STEPS, STEPS, STEPS, STEPS, STEPS),
        ("diffpir", STEPS, 0, STEPS, 0, STEPS),
        ("replacement", 2 * STEPS, 0, 2 * STEPS + 1, 0, 2 * STEPS + 1),  # a corrector each step
    ],
)
def test_calls_of_a_run_are_those_of_its_algorithm(
    name: str, evaluations: int, gradients: int, forward: int, back: int, inverse: int
) -> None:
    found = cost.counted(solver(name))
    assert found == {
        "evaluations": evaluations, "gradients": gradients, "forward": forward, "back": back,
        "inverse": inverse,
    }  # fmt: skip
    assert cost.price(found) == evaluations + 2 * gradients


def test_a_solver_of_other_measurements_has_no_cost_here() -> None:
    assert cost.measured(registry()["spectral-jpeg"]()) is None


def test_use_from_outside_is_counted_once() -> None:
    """What an operator calls of itself is its own affair; the results are the same bits."""
    calls: dict[str, int] = {}
    A = AveragePool(4, (8, 8))
    told = cost.counting(A, calls)
    x = torch.randn(2, 3, 8, 8)
    assert isinstance(told, AveragePool) and torch.equal(told(x), A(x))
    assert torch.equal(told.ridge(A(x), 0.1), A.ridge(A(x), 0.1))
    assert torch.equal(told.pinv_residual(A(x), x), A.pinv_residual(A(x), x))
    assert calls == {"__call__": 1, "ridge": 1, "pinv_residual": 1}


def test_memory_is_of_tensors_that_live_at_once() -> None:
    mib = 2**18  # numbers of 4 bytes
    with cost.Held() as held:
        a = torch.ones(mib)
        assert held.peak == held.now == 2**20
        b = a[1:].view(-1)  # shares the memory of a
        assert held.now == 2**20
        c = a + 1
        del a, b
        assert held.now == 2**20 and held.peak == 2 * 2**20
        d = torch.ones(2 * mib)
        assert held.peak == 3 * 2**20
        del c, d
    assert held.now == 0


def test_memory_of_a_gradient_is_kept_until_it_is_taken() -> None:
    """Between the layers of a network: what evaluation frees, a gradient needs."""
    layers = torch.nn.Sequential(*(torch.nn.Tanh() for _ in range(8)))
    x = torch.ones(2**18)
    with torch.no_grad(), cost.Held() as plain:
        layers(x)
    with cost.Held() as grown:
        layers(x.requires_grad_()).sum().backward()
    assert plain.peak == 2 * 2**20 and 8 * 2**20 <= grown.peak <= 11 * 2**20


def test_a_line_becomes_a_row_and_a_point(tmp_path) -> None:
    lines = []
    for name, far in (("dps", 5.0), ("diffpir", 7.0)):
        values = cost.measured(solver(name))
        assert values and values["ratio"] > 1 and values["seconds"] > 0
        lines += [
            {"item": f"cost/{name}", "part": "cost", "row": name, "steps": STEPS, "values": values},
            {"item": f"mixture/{name}/8,4", "part": "mixture", "row": name,
             "values": {"distance": [far, far + 1]}},
        ]  # fmt: skip
    memory = {line["row"]: line["values"]["memory"] for line in lines if line["part"] == "cost"}
    assert memory["dps"] > 3 * memory["diffpir"]  # it goes back through the network
    rows = [row for row in tables._cost(lines) if row.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == ["diffpir", "dps"]
    assert plots._cost(tmp_path / "cost.png", lines) and (tmp_path / "cost.png").stat().st_size
