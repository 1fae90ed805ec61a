"""The measures of benchmarks.coils.speed."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

import pytest
import torch

from benchmarks.coils import speed
from ctxrecon.coils import simulate_coil_maps


def test_agreement_ignores_the_phase_of_a_pixel_only(generator):
    maps = simulate_coil_maps(4, (16, 12), generator=generator)
    turned = maps * torch.exp(1j * torch.rand(1, 1, 16, 12, generator=generator))
    inside = torch.ones(16, 12, dtype=torch.bool)
    assert speed.relative_error(maps, turned, inside) < 1e-6
    phases = torch.exp(1j * torch.rand(1, 4, 1, 1, generator=generator))
    assert speed.relative_error(maps, maps * phases, inside) > 0.05


def test_residual_is_what_lies_outside_the_maps(generator):
    maps = simulate_coil_maps(4, (16, 12), generator=generator)
    image = torch.randn(1, 1, 16, 12, dtype=torch.complex64, generator=generator)
    other = torch.randn(maps.shape, dtype=torch.complex64, generator=generator)
    other = other - maps * (maps.conj() * other).sum(dim=1, keepdim=True)
    other = other * (maps * image).norm() / other.norm()
    assert speed.projection_residual(maps * image, maps) < 1e-6
    assert speed.projection_residual(maps * image + other, maps) == pytest.approx(0.5**0.5)


def test_barts_files_are_not_counted_as_its_work():
    times = {"ctxrecon": [(10.0, 5.0)], "BART, files only": [(4.0, 3.0)], "BART": [(44.0, 23.0)]}
    row = speed.summary(times)["BART"]
    assert (row["clock / ctxrecon"], row["cpu / ctxrecon"]) == (4, 4)


def test_a_case_gives_a_row_for_each_method(generator, monkeypatch):
    case = speed.simulated_case(3, (40, 32), generator)
    monkeypatch.setattr(speed, "make_case", lambda *_: case)
    arguments = Namespace(threads=1, data=None, seed=0, turns=1, sigpy_turns=1)
    threads = torch.get_num_threads()
    rows: dict[str, Any] = {**speed.measure_case("small", arguments)}
    torch.set_num_threads(threads)
    assert rows["sigpy"]["relative difference to ctxrecon"] < 0.05
    assert rows["ctxrecon"]["projection residual"] < 0.05
    assert all(row["cpu_ms"] > 0 for row in rows.values())
