"""Coil maps estimated from calibration lines."""

from __future__ import annotations

import logging
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from narrow import present
from torch import Tensor

from ctxrecon.coils import _espirit as module
from ctxrecon.coils import (
    espirit,
    estimate_coil_maps,
    find_calibration_region,
    root_sum_of_squares,
    simulate_coil_maps,
)
from ctxrecon.errors import InputError
from ctxrecon.fourier import fft2c, ifft2c
from ctxrecon.masks import uniform1d
from ctxrecon.phantom import phantom_scan

needs_bart = pytest.mark.skipif(shutil.which("bart") is None, reason="BART is not installed")


def center_lines(shape: tuple[int, int], lines: int) -> Tensor:
    mask = torch.zeros(1, 1, *shape, dtype=torch.bool)
    first = shape[1] // 2 - lines // 2
    mask[..., first : first + lines] = True
    return mask


def ellipse(shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Object ``(ny, nx)`` with inner structure, and the mask of where it is."""
    y = torch.linspace(-1, 1, shape[0])[:, None]
    x = torch.linspace(-1, 1, shape[1])
    inside = (y / 0.75) ** 2 + (x / 0.65) ** 2 < 1
    return inside * (1 + 0.3 * torch.sin(9 * y + 4) * torch.cos(13 * x)), inside


def simulated_scan(
    generator: torch.Generator, shape=(96, 80), coils=6, batch=1, noise=1e-3
) -> tuple[Tensor, Tensor, Tensor]:
    maps = simulate_coil_maps(coils, shape, batch_size=batch, generator=generator)
    image, inside = ellipse(shape)
    kspace = fft2c(maps * image)
    kspace = kspace + noise * torch.randn(kspace.shape, dtype=kspace.dtype, generator=generator)
    return kspace, maps, inside


def similarity(first: Tensor, second: Tensor) -> Tensor:
    """``|<S_1, S_2>|`` in each pixel: maps are defined up to a phase."""
    return (first.conj() * second).sum(dim=1).abs()


def residual(images: Tensor, maps: Tensor) -> float:
    """Return the relative norm of the coil images outside the span of the maps."""
    explained = maps * (maps.conj() * images).sum(dim=1, keepdim=True)
    return float(torch.linalg.vector_norm(images - explained) / torch.linalg.vector_norm(images))


def bart_ecalib(kspace: Tensor, folder: Path, *arguments: str) -> Tensor:
    data = kspace.permute(0, 2, 3, 1).numpy()  # (1, ny, nx, coils)
    (folder / "k.hdr").write_text("# Dimensions\n" + " ".join(map(str, data.shape)) + "\n")
    data.ravel(order="F").tofile(folder / "k.cfl")
    command = ["bart", "ecalib", "-m", "1", *arguments, str(folder / "k"), str(folder / "s")]
    subprocess.run(command, check=True, capture_output=True)
    shape = [int(n) for n in (folder / "s.hdr").read_text().splitlines()[1].split()]
    maps = np.fromfile(folder / "s.cfl", dtype=np.complex64).reshape(shape, order="F")
    return torch.as_tensor(maps.reshape(data.shape).copy()).permute(0, 3, 1, 2)


# --- the calibration region ---------------------------------------------------------------


@pytest.mark.parametrize("lines", [6, 7, 10, 24])
@pytest.mark.parametrize("shape", [(128, 96), (65, 91), (20, 40)])
def test_region_of_center_lines(shape, lines):
    mask = center_lines(shape, lines)
    mask[..., ::4] = True
    mask[..., shape[1] // 2 - lines // 2 - 1] = False
    mask[..., shape[1] // 2 + (lines + 1) // 2] = False
    rows, columns = find_calibration_region(mask)
    assert (columns.start, columns.stop - columns.start) == (shape[1] // 2 - lines // 2, lines)
    assert rows.stop - rows.start == min(48, shape[0])
    assert rows.start <= shape[0] // 2 < rows.stop


def test_region_of_a_2d_mask(generator):
    mask = torch.rand(1, 1, 60, 70, generator=generator) < 0.3
    mask[..., 24:38, 26:43] = True
    mask[..., 23, 30] = mask[..., 38, 30] = mask[..., 30, 25] = mask[..., 30, 43] = False
    assert find_calibration_region(mask) == (slice(24, 38), slice(26, 43))


def test_region_is_common_to_all_items():
    mask = torch.cat([center_lines((64, 64), 8), center_lines((64, 64), 12)])
    assert find_calibration_region(mask)[1] == slice(28, 36)


def test_region_prefers_a_square_to_a_strip():
    mask = torch.zeros(64, 64, dtype=torch.bool)
    mask[26:38, 26:38] = True
    mask[:, 30:34] = True
    assert find_calibration_region(mask) == (slice(26, 38), slice(26, 38))


@pytest.mark.parametrize(("shape", "sizes"), [((90, 70), (48, 24)), ((20, 70), (20, 48))])
def test_region_of_a_full_mask_is_bounded(shape, sizes):
    region = find_calibration_region(torch.ones(shape, dtype=torch.bool))
    assert tuple(axis.stop - axis.start for axis in region) == sizes
    assert all(axis.start < n // 2 < axis.stop for axis, n in zip(region, shape, strict=True))


@pytest.mark.parametrize(("lines", "found"), [(0, "0×0"), (3, "48×3")])
def test_no_region_is_refused(lines, found):
    with pytest.raises(InputError, match=rf"at least 4×4 samples .* \(32, 32\), found {found}: "):
        find_calibration_region(center_lines((64, 64), lines))


def test_region_refuses_a_mask_of_numbers():
    with pytest.raises(InputError, match=r"mask.*float32"):
        find_calibration_region(torch.ones(8, 8))


# --- ESPIRiT --------------------------------------------------------------------------------


@pytest.mark.parametrize("lines", [6, 7, 10, 24])
@pytest.mark.parametrize("shape", [(96, 80), (107, 131)])
def test_maps_of_a_simulated_array(shape, lines, generator):
    kspace, maps, inside = simulated_scan(generator, shape)
    mask = center_lines(shape, lines)
    estimate = estimate_coil_maps(kspace * mask, mask)
    assert estimate.dtype == torch.complex64
    agreement = similarity(maps, estimate)[0][inside]
    # Few lines make an edge of the object: the very rim is allowed to be worse.
    assert agreement.median() > 0.999
    assert agreement.quantile(0.02) > 0.99
    assert residual(ifft2c(kspace), estimate) < 0.1


def test_unit_norm_and_unit_eigenvalue_inside(generator):
    kspace, _, inside = simulated_scan(generator)
    result = espirit(kspace[..., 36:60, 28:52], (96, 80))
    norm = root_sum_of_squares(result.coil_maps)
    torch.testing.assert_close(norm[0][inside], torch.ones(int(inside.sum())))
    assert (((norm - 1).abs() < 1e-4) | (norm == 0)).all()
    assert (result.eigenvalues[0][inside] - 1).abs().max() < 0.02
    assert result.eigenvalues[0, :4, :4].max() < 0.9, "the air has none"


def test_a_kernel_larger_than_the_block_is_refused(generator):
    kspace, _, _ = simulated_scan(generator)
    with pytest.raises(InputError, match=r"\(24, 5\).*\(6, 6\)"):
        espirit(kspace[..., 36:60, 38:43], (96, 80))


def test_interpolation_agrees_with_every_pixel(generator, monkeypatch):
    kspace, _, inside = simulated_scan(generator, (128, 110))
    calibration = kspace[..., 52:76, 43:67]
    coarse = espirit(calibration, (128, 110), crop=0)
    monkeypatch.setattr(module, "POINTS_PER_SAMPLE", 1000)
    full = espirit(calibration, (128, 110), crop=0)
    assert (coarse.coil_maps - full.coil_maps)[0][:, inside].abs().max() < 1e-3
    assert (coarse.eigenvalues - full.eigenvalues)[0][inside].abs().max() < 1e-3


def test_phase_is_that_of_the_principal_component(generator):
    kspace, _, inside = simulated_scan(generator)
    calibration = kspace[..., 36:60, 28:52]
    maps = espirit(calibration, (96, 80)).coil_maps
    samples = calibration[0].flatten(1)
    component = torch.linalg.svd(samples, full_matrices=False)[0][:, 0]
    projection = torch.einsum("cyx,c->yx", maps[0].conj(), component)[inside]
    projection = projection * projection.sum().conj() / projection.sum().abs()
    assert projection.real.min() > -1e-3
    assert projection.imag.abs().max() < 1e-3


@pytest.mark.parametrize("scale", [1e-20, 1e12])
def test_maps_do_not_depend_on_scale(scale, generator):
    kspace, _, _ = simulated_scan(generator)
    mask = center_lines((96, 80), 10)
    reference = estimate_coil_maps(kspace * mask, mask)
    torch.testing.assert_close(
        estimate_coil_maps(scale * kspace * mask, mask), reference, atol=1e-3, rtol=0
    )


def test_batched_equals_one_by_one(generator, monkeypatch):
    kspace, _, _ = simulated_scan(generator, batch=3)
    mask = center_lines((96, 80), 10)
    single = torch.cat([estimate_coil_maps(item[None] * mask, mask) for item in kspace])
    batch = estimate_coil_maps(kspace * mask, mask)
    torch.testing.assert_close(batch, single, atol=1e-3, rtol=0)
    monkeypatch.setattr(module, "_MAX_GRID_ENTRIES", 1)
    torch.testing.assert_close(estimate_coil_maps(kspace * mask, mask), single, atol=1e-3, rtol=0)


def test_crop_is_a_threshold_on_the_eigenvalue(generator):
    kspace, _, inside = simulated_scan(generator)
    mask = center_lines((96, 80), 24)
    support = {
        crop: root_sum_of_squares(estimate_coil_maps(kspace * mask, mask, crop=crop))[0] > 0
        for crop in (0, 0.8, "auto")
    }
    assert support[0].all()
    assert inside.sum() <= support["auto"].sum() <= support[0.8].sum() < 0.8 * inside.numel()


@pytest.mark.parametrize("lines", [6, 8, 12])
@pytest.mark.parametrize("noise", [1e-3, 0.1])
def test_automatic_crop_keeps_the_object(lines, noise, generator):
    kspace, _, _ = simulated_scan(generator, noise=noise)
    images, _ = ellipse((96, 80))
    mask = center_lines((96, 80), lines)
    kept = root_sum_of_squares(estimate_coil_maps(kspace * mask, mask))[0] > 0
    assert (images[~kept] ** 2).sum() < 0.01 * (images**2).sum()


def test_mask_is_inferred_from_nonzero_samples(generator, caplog):
    kspace, _, _ = simulated_scan(generator)
    mask = center_lines((96, 80), 10)
    with caplog.at_level(logging.INFO, logger="ctxrecon.coils"):
        inferred = estimate_coil_maps(kspace * mask)
    assert "no mask given" in caplog.text
    assert "slice 0: calibration region" in caplog.text
    torch.testing.assert_close(inferred, estimate_coil_maps(kspace * mask, mask))


def test_a_single_coil_has_maps_of_ones(generator, caplog):
    kspace = torch.randn(2, 1, 16, 16, dtype=torch.complex64, generator=generator)
    with caplog.at_level(logging.INFO, logger="ctxrecon.coils"):
        assert (estimate_coil_maps(kspace) == 1).all()
    assert "a single coil" in caplog.text


def test_bad_calibration_input_is_refused(generator):
    kspace, _, _ = simulated_scan(generator, (32, 32), coils=2, batch=2)
    mask = center_lines((32, 32), 8)
    with pytest.raises(InputError, match="at least 4×4 samples"):
        estimate_coil_maps(kspace, center_lines((32, 32), 2))
    with pytest.raises(InputError, match=r"mask \(batch"):
        estimate_coil_maps(kspace, mask[0])
    with pytest.raises(InputError, match=r"walsh.*bart"):
        estimate_coil_maps(kspace, mask, method="bart")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="only zeros in slice 1"):
        estimate_coil_maps(kspace * torch.tensor([1, 0])[:, None, None, None], mask)
    with pytest.raises(InputError, match=r"kernel_size.*1"):
        estimate_coil_maps(kspace, mask, kernel_size=1)
    with pytest.raises(InputError, match=r"threshold.*1\.5"):
        estimate_coil_maps(kspace, mask, threshold=1.5)
    with pytest.raises(InputError, match=r"between 0 and 1, got 'automatic'"):
        estimate_coil_maps(kspace, mask, threshold="automatic")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"crop.*2"):
        estimate_coil_maps(kspace, mask, crop=2)
    kspace[0, 0, 0, 0] = torch.tensor(complex("inf"))
    with pytest.raises(InputError, match="expected finite k-space"):
        estimate_coil_maps(kspace, mask)


# --- against others -------------------------------------------------------------------------


def test_sigpy_agrees_on_a_square_region(generator):
    kspace, _, inside = simulated_scan(generator)
    calibration = torch.zeros(1, 1, 96, 80, dtype=torch.bool)
    calibration[..., 36:60, 28:52] = True
    ours = estimate_coil_maps(kspace * calibration, calibration)
    theirs = estimate_coil_maps(kspace * calibration, calibration, method="sigpy")
    assert theirs.shape == ours.shape
    assert similarity(ours, theirs)[0][inside].quantile(0.05) > 0.99


@needs_bart
@pytest.mark.parametrize("lines", [10, 24])
def test_bart_agrees_on_a_simulated_array(lines, generator, tmp_path):
    kspace, _, inside = simulated_scan(generator)
    mask = center_lines((96, 80), lines)
    theirs = bart_ecalib(kspace * mask, tmp_path, "-r", f"1:48:{lines}", "-k", "5")
    supported = inside & (root_sum_of_squares(theirs)[0] > 0)
    assert supported.sum() > 0.5 * inside.sum()
    agreement = similarity(estimate_coil_maps(kspace * mask, mask), theirs)[0][supported]
    assert agreement.median() > 0.999
    assert agreement.quantile(0.05) > 0.99


def maps_of_the_longest_region(kspace: Tensor, mask: Tensor) -> Tensor:
    """One set of maps from as many samples as BART gets."""
    region = find_calibration_region(mask)
    lines = region[1].stop - region[1].start
    calibration = kspace[:, :, region[0], region[1]]
    return espirit(
        calibration, (kspace.shape[2], kspace.shape[3]), kernel_size=(6, min(6, lines // 2))
    ).coil_maps


@needs_bart
@pytest.mark.parametrize("lines", [10, 20])
def test_real_brain_against_bart(lines, shared_data, tmp_path):
    images = torch.as_tensor(np.load(shared_data / "brain_t2_4ch" / "coil_images.npy"))[None]
    mask = center_lines((256, 256), lines)
    kspace = fft2c(images) * mask
    ours = maps_of_the_longest_region(kspace, mask)
    theirs = bart_ecalib(kspace, tmp_path, "-r", f"1:48:{lines}", "-k", "5")
    supported = (root_sum_of_squares(ours) > 0) & (root_sum_of_squares(theirs) > 0)
    agreement = similarity(ours, theirs)[supported]
    assert agreement.median() > 0.999
    assert agreement.quantile(0.05) > 0.99
    assert residual(images, ours) < 1.05 * residual(images, theirs)


@pytest.mark.parametrize("lines", [6, 7])
def test_real_brain_with_very_few_lines(lines, shared_data):
    images = torch.as_tensor(np.load(shared_data / "brain_t2_4ch" / "coil_images.npy"))[None]
    mask = center_lines((256, 256), lines)
    assert residual(images, estimate_coil_maps(fft2c(images) * mask, mask)) < 0.09


def test_real_undersampled_scan(shared_data):
    path = shared_data / "brain_t1_8ch_undersampled" / "cartesian_ksp.npy"
    kspace = torch.as_tensor(np.load(path))[None]
    rows, columns = find_calibration_region((kspace != 0).any(dim=1, keepdim=True))
    assert rows.stop - rows.start >= 23
    assert columns.stop - columns.start >= 23
    norm = root_sum_of_squares(estimate_coil_maps(kspace))[0]
    assert norm[115, 90] == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("snr", [0.5, 1.0, 3.0])
def test_strong_noise_does_not_empty_the_maps(snr):
    """For pure noise, an empty prediction of held-out samples is best; no setting is chosen."""
    generator = torch.Generator().manual_seed(int(10 * snr))
    scan = phantom_scan(shape=(96, 96), num_coils=8, snr=snr, generator=generator)
    mask = uniform1d((96, 96), 4, 0.2, generator=generator)
    maps = estimate_coil_maps(scan.kspace * mask, mask)
    sets = maps.flatten(1, -3) if maps.ndim == 5 else maps
    inside = (sets != 0).any(dim=1)
    target = present(scan.target)
    bright = target.abs() > 0.3 * target.abs().max()
    assert float(inside[bright].float().mean()) > 0.5
