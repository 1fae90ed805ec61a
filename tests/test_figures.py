from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from ctxrecon.errors import InputError
from ctxrecon.figures import comparison_figure


@pytest.fixture
def images(generator) -> dict[str, torch.Tensor]:
    return {
        name: torch.randn(24, 20, dtype=torch.complex64, generator=generator)
        for name in ("zero-filled", "CG-SENSE")
    }


def _size(path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def test_reference_adds_a_column_and_the_error_row(tmp_path, images):
    plain = comparison_figure(tmp_path / "plain.png", images)
    compared = comparison_figure(tmp_path / "compared.png", images, images["CG-SENSE"])
    assert _size(compared)[0] > _size(plain)[0]
    assert _size(compared)[1] > _size(plain)[1]


def test_std_gets_a_panel_of_its_own_without_a_reference(tmp_path, images):
    without = comparison_figure(tmp_path / "a.png", images)
    with_std = comparison_figure(tmp_path / "b.png", images, std=np.ones((24, 20)))
    assert _size(with_std)[0] > _size(without)[0]


def test_errors_are_five_times_brighter_in_the_window_of_the_reference(tmp_path):
    # A flat reference is white; an error of a fifth of it is as bright as the scale goes.
    reference = np.ones((16, 16))
    image = reference.copy()
    image[:, :8] = 0.8
    path = comparison_figure(tmp_path / "a.png", {"x": image}, reference)
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    height, width = pixels.shape[:2]
    row = pixels[int(0.8 * height)]
    right_panel = row[width // 2 + 30 : width - 30]
    assert right_panel[0].sum() > 600
    assert right_panel[-1].sum() < 60


def test_many_images_wrap_to_rows_of_at_most_five(tmp_path):
    many = {str(i): np.ones((8, 8)) * (i + 1) for i in range(8)}
    width, height = _size(comparison_figure(tmp_path / "a.png", many))
    assert width < 5 * height
    assert width < 1500


def test_long_titles_get_lines_of_their_own(tmp_path):
    def height(name: str) -> int:
        image = np.ones((8, 8))
        return _size(comparison_figure(tmp_path / "a.png", {name: image}, image / 2))[1]

    third = ", a third of the labels"
    details = ("", ", 6 steps", third, f"{third} of as many people as are there")
    plain, beside, below, twice = (height(f"WGAN{detail}") for detail in details)
    assert plain == beside < below < twice


def test_same_figure_again(tmp_path, images):
    first = comparison_figure(tmp_path / "a.png", images).read_bytes()
    assert comparison_figure(tmp_path / "b.png", images).read_bytes() == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]


@pytest.mark.parametrize(
    ("name", "arguments", "sentence"),
    [
        ("a.jpg", {}, r"\.png"),
        ("a.png", {"reference": np.ones((3, 3))}, "images of one shape"),
        ("a.png", {"std": np.ones(3)}, r"image \(ny, nx\)"),
        ("none/a.png", {}, "does not exist"),
    ],
)
def test_malformed_requests_are_refused(tmp_path, images, name, arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        comparison_figure(tmp_path / name, images, **arguments)


def test_no_images(tmp_path):
    with pytest.raises(InputError, match="at least one image"):
        comparison_figure(tmp_path / "a.png", {})


def test_a_long_name_of_a_file_stays_inside_the_figure(tmp_path):
    name = "MEAS_MID00349_FID09273_SNR_R3.H5, ×2"
    path = comparison_figure(tmp_path / "a.png", {"x": np.ones((48, 32))}, title=name)
    edge = np.asarray(Image.open(path).convert("L"))[:, -2:]
    assert (edge == edge[0, 0]).all()
