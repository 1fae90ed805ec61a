from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from narrow import present

from ctxrecon.arrays import check_kspace
from ctxrecon.coils import simulate_coil_maps
from ctxrecon.errors import InputError
from ctxrecon.fourier import fft2c
from ctxrecon.masks import uniform1d
from ctxrecon.measurement import prepare_measurement
from ctxrecon.output import ReconstructionOutput, convert_images, relative_residual
from ctxrecon.scan import Scan

BATCH, COILS, NY, NX = 2, 4, 24, 32


@pytest.fixture
def maps(generator):
    return simulate_coil_maps(COILS, (NY, NX), batch_size=BATCH, generator=generator)


@pytest.fixture
def mask(generator):
    return uniform1d((NY, NX), 2, 0.25, batch_size=BATCH, generator=generator)


@pytest.fixture
def kspace(maps, mask):
    y, x = torch.meshgrid(torch.linspace(-1, 1, NY), torch.linspace(-1, 1, NX), indexing="ij")
    image = (x**2 + y**2 < 0.6) * (1 + x) + 0.01
    return mask * fft2c(maps * image)


def test_canonical_input_passes_unchanged(kspace, mask, maps):
    measurement = prepare_measurement(kspace, mask, maps)
    assert torch.equal(measurement.y, kspace)
    assert torch.equal(present(measurement.mask), mask)
    assert torch.equal(present(measurement.coil_maps), maps)
    torch.testing.assert_close(measurement.operator.adjoint(kspace).shape, (BATCH, NY, NX))


def test_numpy_and_torch_are_the_same(kspace, mask, maps):
    given = [value.numpy() for value in (kspace, mask, maps)]
    measurement = prepare_measurement(*given)
    assert torch.equal(measurement.y, kspace)
    assert torch.equal(present(measurement.mask), mask)
    assert torch.equal(present(measurement.coil_maps), maps)


def test_unusual_but_sound_arrays_pass(kspace, mask, maps):
    big_endian = kspace.numpy().astype(">c16")
    big_endian.setflags(write=False)
    reversed_twice = np.ascontiguousarray(mask.numpy()[..., ::-1])[..., ::-1].astype(np.uint16)
    measurement = prepare_measurement(big_endian, reversed_twice, maps.conj().resolve_conj().conj())
    assert torch.equal(measurement.y, kspace)
    assert torch.equal(present(measurement.mask), mask)
    assert torch.equal(present(measurement.coil_maps), maps)


def test_the_given_arrays_are_left_alone(kspace, mask, maps):
    given = [value.numpy().copy() for value in (kspace, mask, maps)]
    given[1][..., -3:] = False
    copies = [value.copy() for value in given]
    prepare_measurement(*given)
    for value, copy in zip(given, copies, strict=True):
        np.testing.assert_array_equal(value, copy)


def test_one_slice_and_one_coil(kspace, mask, maps):
    one_slice = prepare_measurement(kspace[0], mask[0, 0], maps[0])
    assert one_slice.y.shape == (1, COILS, NY, NX)
    assert present(one_slice.mask).shape == (1, 1, NY, NX)
    one_coil = prepare_measurement(kspace[0, 0], mask[0, 0])
    assert one_coil.y.shape == (1, 1, NY, NX)
    assert one_coil.coil_maps is None
    assert one_coil.operator.domain_shape == (1, NY, NX)


@pytest.mark.filterwarnings("ignore:ComplexHalf")
@pytest.mark.parametrize(
    "form", ["memory map", "reversed", "h5py", "MATLAB", "conjugate", "negative", "half"]
)
def test_clear_forms_of_kspace_are_taken(kspace, mask, maps, form, tmp_path):
    array = kspace.numpy()
    if form == "memory map":
        np.save(tmp_path / "kspace.npy", array)
        given = np.load(tmp_path / "kspace.npy", mmap_mode="r")
    elif form == "reversed":
        given = np.ascontiguousarray(array[..., ::-1])[..., ::-1]
    elif form in ("h5py", "MATLAB"):
        names = ("r", "i") if form == "h5py" else ("real", "imag")
        given = np.empty(array.shape, [(name, "<f4") for name in names])
        given[names[0]], given[names[1]] = array.real, array.imag
    elif form == "conjugate":
        given = kspace.conj().resolve_conj().conj()
    elif form == "negative":
        given = torch.complex(kspace.real, kspace.conj().imag).conj()
        assert kspace.conj().imag.is_neg()
    else:
        given = kspace.to(torch.complex32)
    tolerance: dict[str, Any] = {"rtol": 1e-2, "atol": 1e-2} if form == "half" else {}
    measurement = prepare_measurement(given, mask, maps)
    torch.testing.assert_close(measurement.y, kspace, **tolerance)


@pytest.mark.parametrize("form", ["lines", "plane", "batch", "float", "integers"])
def test_masks_come_in_several_forms(kspace, mask, maps, form):
    one = mask[:1]
    forms = {
        "lines": one[0, 0, 0],
        "plane": one[0, 0],
        "batch": one[:, 0],
        "float": one.float(),
        "integers": one.numpy().astype(np.int16),
    }
    measurement = prepare_measurement(kspace * one, forms[form], maps)
    assert present(measurement.mask).dtype == torch.bool
    assert torch.equal(present(measurement.mask), one)


def test_a_missing_mask_is_inferred_and_logged(kspace, mask, maps, caplog):
    with caplog.at_level(logging.INFO):
        measurement = prepare_measurement(kspace, None, maps)
    assert torch.equal(present(measurement.mask), mask)
    assert "50.0 %" in caplog.text


def test_missing_coil_maps_are_estimated_and_logged(kspace, mask, caplog):
    with caplog.at_level(logging.INFO):
        measurement = prepare_measurement(kspace, mask)
    assert present(measurement.coil_maps).shape == (BATCH, COILS, NY, NX)
    assert "calibration region" in caplog.text


def test_samples_outside_the_mask_are_dropped_and_logged(kspace, mask, maps, caplog):
    full = kspace + 1
    measurement = prepare_measurement(full, mask, maps)
    torch.testing.assert_close(measurement.y, full * mask)
    assert f"{BATCH * NY * NX // 2} positions" in caplog.text


def replaced(tensor, value):
    changed = tensor.clone()
    changed.view(-1)[3] = value
    return changed


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda y: y.tolist(), "k-space .*list"),
        (lambda y: np.array(["a"]), "k-space.*<U1"),
        (lambda y: y.real, "complex k-space.*float32.*view_as_complex"),
        (lambda y: y.real.numpy(), "complex k-space.*float32"),
        (lambda y: torch.view_as_real(y), r"kspace\[..., 0\] \+ 1j \* kspace\[..., 1\]"),
        (lambda y: torch.stack([y[0].real, y[0].imag], 1), r"kspace\[..., 0, :, :\] \+ 1j"),
        (lambda y: (100 * y.abs()).numpy().astype(int), "complex k-space.*int64"),
        (lambda y: np.ma.masked_array(y.numpy(), y.numpy() == 0), r"masked array.*filled\(0\)"),
        (lambda y: np.array([y[0].numpy(), None], dtype=object), "of object: .*np.stack"),
        (lambda y: y.to_sparse(), "to_dense"),
        (lambda y: y[None], r"expected k-space \(batch, .* got shape \(1, 2, 4.*reshape\(-1, "),
        (lambda y: y[0, 0, 0], r"k-space .*\(32,\).*reshape\(ny, nx\)"),
        (lambda y: y[:0], r"got the empty shape \(0, 4, 24, 32\)"),
        (lambda y: replaced(y, torch.nan), "k-space .*NaN"),
        (lambda y: replaced(y, torch.inf), "k-space .*NaN"),
        (lambda y: y.numpy().astype(np.complex128) * 1e60, "k-space .*NaN"),
    ],
)
def test_malformed_kspace_is_refused(kspace, mask, maps, change, sentence):
    with pytest.raises(InputError, match=sentence):
        prepare_measurement(change(kspace), mask, maps)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda m: "uniform1d", "mask .*str"),
        (
            lambda m: m.float() * 2,
            "0 and 1.*float32",
        ),
        (lambda m: m.to(torch.complex64), "0 and 1.*complex64"),
        (lambda m: m.float() * torch.nan, "0 and 1"),
        (lambda m: m.mT, r"\(2, 1, 32, 24\) .*24x32"),
        (lambda m: m.mT, r"np.swapaxes\(mask, -1, -2\)"),
        (lambda m: m[0, 0, :, 0], r"mask .*\(24,\).*np\.repeat"),
        (lambda m: m.float() * 255, "give mask != 0"),
        (lambda m: m.expand(-1, COILS, -1, -1), r"mask\[:, :1\]"),
        (lambda m: m.expand(-1, COILS, -1, -1), r"mask .*\(2, 4, 24, 32\)"),
        (lambda m: m[:1, :1, :1, :, None], r"mask\.reshape\(-1\)"),
        (lambda m: m & False, "the mask samples nothing"),
        (lambda m: ~m, "k-space of slice 0"),
    ],
)
def test_malformed_masks_are_refused(kspace, mask, maps, change, sentence):
    with pytest.raises(InputError, match=sentence):
        prepare_measurement(kspace, change(mask), maps)


def test_a_mask_for_every_coil_of_a_square_matrix():
    kspace = torch.ones(1, 4, 8, 8, dtype=torch.complex64)
    with pytest.raises(InputError, match=r"mask\[:, :1\]"):
        prepare_measurement(kspace, torch.ones(1, 4, 8, 8, dtype=torch.bool))


@pytest.mark.parametrize(
    ("given", "advice"),
    [
        ("scan.h5", "ctxrecon.read_scan"),
        (Path("scan.h5"), "ctxrecon.read_scan"),
        (Scan(torch.ones(1, 1, 8, 8) + 0j, torch.ones(1, 1, 8, 8, dtype=torch.bool)), "from_scan"),
        ([1j], "np.asarray"),
    ],
)
def test_what_is_no_array_is_refused_with_a_way_to_one(given, advice):
    with pytest.raises(InputError, match=advice):
        prepare_measurement(given)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda s: 1.0, "coil maps .*float"),
        (lambda s: s.abs(), "complex coil maps.*float32"),
        (lambda s: s[:, :3], r"coil maps .*\(2, 3, 24, 32\)"),
        (lambda s: s.mT, r"coil maps .*\(2, 4, 32, 24\)"),
        (lambda s: s[0, 0], r"coil maps .*\(24, 32\)"),
        (lambda s: torch.cat([s, s]), r"coil maps .*\(4, 4, 24, 32\)"),
        (lambda s: replaced(s, torch.nan), "coil maps .*NaN"),
        (lambda s: s * 0, "coil maps .*zero"),
    ],
)
def test_malformed_coil_maps_are_refused(kspace, mask, maps, change, sentence):
    with pytest.raises(InputError, match=sentence):
        prepare_measurement(kspace, mask, change(maps))


def test_output_forms(generator):
    images = torch.randn(2, 12, 10, dtype=torch.complex64, generator=generator)
    assert convert_images(images, "pt") is images
    array = convert_images(images, "np")
    assert isinstance(array, np.ndarray)
    assert array.dtype == np.complex64
    np.testing.assert_array_equal(array, images.numpy())
    first, second = convert_images(images, "pil")
    assert (first.mode, first.size) == ("L", (10, 12))
    gray = np.asarray(second)
    magnitude = images[1].abs().numpy()
    assert gray.max() == 255
    assert np.corrcoef(gray.ravel(), magnitude.ravel())[0, 1] > 0.99
    np.testing.assert_array_equal(convert_images(images * 0, "pil")[0], np.zeros((12, 10)))


def test_malformed_output_requests_are_refused():
    with pytest.raises(InputError, match=r"output_type .*'latent'"):
        convert_images(torch.ones(1, 4, 4), "latent")
    with pytest.raises(InputError, match=r"images .*\(4, 4\)"):
        convert_images(torch.ones(4, 4), "pt")


def test_the_output_is_read_by_name():
    output = ReconstructionOutput[torch.Tensor](
        torch.ones(1, 4, 4), torch.zeros(1), prompts=["a brain"]
    )
    assert output.std is None
    assert output["prompts"] == ["a brain"]
    assert len(output.to_tuple()) == 3


def test_relative_residual_is_per_slice():
    y = torch.ones(2, 3, 4, 4, dtype=torch.complex64)
    predicted = y * torch.tensor([1.0, 1.5j]).reshape(2, 1, 1, 1)
    expected = torch.tensor([0.0, abs(1.5j - 1)])
    torch.testing.assert_close(relative_residual(predicted, y), expected)


@pytest.mark.parametrize("scale", [1e-38, 1e-300, 1e25])
def test_units_that_single_precision_cannot_hold_are_refused(scale):
    kspace = np.full((2, 16, 16), scale, dtype=np.complex128)
    with pytest.raises(InputError, match="multiply k-space by a constant"):
        prepare_measurement(kspace)


def test_a_structured_array_of_zeros_is_a_scan_of_air():
    kspace = np.zeros((1, 1, 16, 16), [("r", "i2"), ("i", "i2")])
    assert check_kspace(kspace).dtype == torch.complex64
