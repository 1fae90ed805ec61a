"""Coils along another axis, and slices in their place."""

from __future__ import annotations

import pytest
import torch
from conventions import full_scan
from gaussian import seeded

from ctxrecon.coils import simulate_coil_maps
from ctxrecon.errors import InputError
from ctxrecon.pipelines import prepare_measurement
from ctxrecon.plausibility import check_coil_axis


@pytest.mark.parametrize("layout", ["slice", "batch"])
def test_coils_last_are_refused(brain_scan, layout):
    last = brain_scan.kspace.movedim(1, -1)
    with pytest.raises(InputError, match=r"np.moveaxis\(kspace, -1, -3\)"):
        prepare_measurement(last[0] if layout == "slice" else last)


def test_coils_last_that_are_as_many_as_pixels_are_warned_of(caplog):
    right = full_scan(shape=(32, 32), coils=32)
    check_coil_axis(right.kspace)
    assert caplog.text == ""
    check_coil_axis(right.kspace.movedim(1, -1))
    assert "np.moveaxis(kspace, -1, -3)" in caplog.text


def test_slices_in_place_of_coils_are_refused():
    slices = torch.randn(130, 32, 32, dtype=torch.complex64, generator=seeded(0))
    with pytest.raises(InputError, match=r"slices of one coil"):
        prepare_measurement(slices)


def test_more_coils_than_pixels_are_warned_of(caplog):
    kspace = torch.randn(1, 24, 16, 16, dtype=torch.complex64, generator=seeded(0))
    prepare_measurement(kspace, None, simulate_coil_maps(24, (16, 16), generator=seeded(1)))
    assert "more coils (24) than pixels (16x16)" in caplog.text
