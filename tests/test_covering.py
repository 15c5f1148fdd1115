"""The rule that chooses which runs stand for all."""

from itertools import combinations, product

from covering import covering

AXES = {"solver": range(5), "operator": range(4), "noise": range(3)}
ALL = [tuple(zip(AXES, values, strict=True)) for values in product(*AXES.values())]


def pairs(run):
    return set(combinations(run, 2))


def test_all_pairs_meet_in_few_runs():
    chosen = covering(ALL, pairs)
    assert set().union(*map(pairs, chosen)) == set().union(*map(pairs, ALL))
    assert 5 * 4 <= len(chosen) <= 1.25 * 5 * 4  # as many as the two longest axes have, or few more
    assert chosen == [run for run in ALL if run in set(chosen)]
    assert chosen == covering(ALL, pairs)


def test_what_only_one_run_holds_is_kept():
    items = {"a": {1, 2, 3}, "b": {3}, "c": {4}}
    assert covering(list(items), items.get) == ["a", "c"]


def test_of_equal_runs_the_least_used_kind_is_taken():
    runs = [(solver, operator) for solver in range(4) for operator in "xy"]
    chosen = covering(runs, lambda run: {run[0]}, spread=lambda run: run[1])
    assert [operator for _, operator in chosen] == ["x", "y", "x", "y"]
