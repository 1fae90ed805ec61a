"""The study of partial Fourier scans, on one small scan."""

import json

import torch

from benchmarks.partial_fourier import FACTORS, METHODS, PHASES, main, partial_mask, with_phase


def test_every_method_is_rated_in_every_cell(tmp_path):
    options = ["--scans", "2", "--resolution", "48", "--coils", "4", "--output_dir", str(tmp_path)]
    main(options)
    cells = json.loads((tmp_path / "partial_fourier.json").read_text())["results"]["cells"]
    assert len(cells) == len(PHASES) * len(FACTORS)
    for cell in cells.values():
        assert list(cell) == list(METHODS)
        assert all(len(values) == 2 and min(values) > 10 for values in cell.values())
    assert "local defect" in (tmp_path / "partial_fourier.md").read_text()


def test_one_side_of_k_space_is_missing():
    lines = partial_mask(64, 2)[0, 0, 0]
    assert not lines[:24].any()
    assert lines[24:44].all()
    assert lines[44:].float().mean() == 0.5


def test_phases_change_no_magnitude():
    image = torch.randn(1, 16, 16, dtype=torch.complex64)
    assert with_phase(image, "own") is image
    for phase in ("smooth", "local defect"):
        torch.testing.assert_close(with_phase(image, phase).abs(), image.abs())
