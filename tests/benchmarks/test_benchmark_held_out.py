"""Held-out phantom scans of the studies."""

from __future__ import annotations

import pytest

from benchmarks.metadata import edits, options, plan
from benchmarks.metadata.experiments import Sources


@pytest.mark.parametrize("pool", [plan.KNEE_PERSON, plan.BRAIN_PERSON])
def test_prompts_of_known_people_state_age_and_sex(pool: plan.Pool) -> None:
    sources = Sources(options.parse_args(["--resolution", "32"]), people=False)
    case = sources.case(pool, 0)
    (metadata,) = case.scan.metadata
    assert metadata.age is not None
    assert metadata.sex in ("F", "M")
    assert "Age" in case.prompt(edits.ALL)
    assert "Age" not in case.prompt(edits.NO_DEMOGRAPHICS)


def test_other_pools_know_no_person() -> None:
    sources = Sources(options.parse_args(["--resolution", "32"]), people=False)
    assert sources.case(plan.KNEE, 0).scan.metadata[0].age is None
