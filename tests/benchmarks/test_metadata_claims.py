"""A claim holds only if its interval is clear of 0, not if the means happen to fall in order."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np
import pytest

from benchmarks.metadata import ladders, plan
from benchmarks.metadata.guidance import guidance
from benchmarks.metadata.measured import METRICS, Measured
from benchmarks.metadata.sections import Section

NUMBERS = list(range(8))
PLANNED = plan.planned_experiments([0, 1, 3], 1, 1, prompt_gammas=[1])


def measured(experiment: plan.Experiment, mean: Callable[[str, plan.Condition], float]) -> Measured:
    """Rows of noise around the mean PSNR of each mask and method."""
    rows = []
    for pool, mask, method in plan.cells(experiment):
        seed = zlib.crc32(f"{mask} {method.name}".encode())
        noise = np.random.default_rng(seed).normal(size=len(NUMBERS))
        psnr = 30 + mean(mask, method) + 0.1 * (noise - noise.mean())
        for number in NUMBERS:
            cell = {"pool": pool.name, "mask": mask, "method": method.name, "kind": "procedural"}
            values = dict.fromkeys(METRICS, "0.5") | {"psnr": str(psnr[number])}
            rows.append({**cell, **values, "scan": str(number), "findings": "", "person": ""})
    return Measured(rows)


def verdict(section: Section, part: str) -> set[bool]:
    found = {holds for statement, holds, _ in section.claims if part in statement}
    assert found, part
    return found


@pytest.mark.parametrize(("step", "holds"), [(0.001, False), (1.0, True)])
@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("removal", "the paper's order"),
        ("pathology", "lies between none"),
        ("pathology", "a wrong pathology costs"),
    ],
)
def test_an_order_of_means_is_no_evidence(name, part, step, holds):
    experiment = PLANNED[name]
    rows = measured(experiment, lambda _, method: -step * experiment.methods.index(method))
    section = getattr(ladders, name)(rows, experiment, NUMBERS, 1.0)
    assert verdict(section, part) == {holds}


@pytest.mark.parametrize(("lead", "holds"), [(0.001, False), (1.0, True), (-1.0, False)])
def test_the_gain_at_x4_against_that_at_x8(lead, holds):
    experiment = PLANNED["guidance"]

    def mean(mask: str, method: plan.Condition) -> float:
        return (method.gamma == 1) * (2 + lead * (mask == "uniform1d ×4"))

    section = guidance(measured(experiment, mean), experiment, NUMBERS, 1.0)
    assert verdict(section, "more at uniform1d ×4") == {holds}
