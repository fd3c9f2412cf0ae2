"""`jointgen.explain`, in Python."""

from __future__ import annotations

import pytest

import jointgen
from jointgen.objectives import E, Objective, p, q


def test_an_objective_composed_in_python_is_explained() -> None:
    elbo = Objective.of(E(q.xz, p.log_x_given_z + p.log_z - q.log_z_given_x))
    told = jointgen.explain("quickstart", {"train.steps": 3}, objective=elbo)
    assert str(told) == repr(told)
    assert "3 steps of 128 rows, 384 rows in all" in told.text
    assert [update["trains"] for update in told.tables["stages"][0]["updates"]] == [["encoder", "decoder"]]


def test_what_a_run_would_refuse_is_refused() -> None:
    with pytest.raises(jointgen.ConfigError, match="did you mean 'steps'"):
        jointgen.explain("quickstart", {"train.stepz": 3})
