"""Slices of air or of zeros in every pipeline, alone and in a batch with others."""

from __future__ import annotations

import pytest
import torch
from gaussian import complex_noise, seeded
from narrow import complete, images_of, present
from random_operators import random_case

from ctxrecon.baselines import BASELINES
from ctxrecon.coils import simulate_coil_maps
from ctxrecon.emptiness import find_empty
from ctxrecon.errors import InputError
from ctxrecon.fourier import fft2c
from ctxrecon.masks import MASKS, make_mask
from ctxrecon.masks.learned import PerContrastSampler
from ctxrecon.pipelines import (
    BaselinePipeline,
    JointPipeline,
    ReconstructionPipeline,
    prepare_measurement,
)
from ctxrecon.reconstructors import HRUNet, MoDL
from ctxrecon.solvers import DDS3D, SOLVERS

SHAPE = (48, 48)
MASK = make_mask("uniform1d", SHAPE, 3, 0.25, generator=seeded(0))


def signal(seed: int = 0, coils: int = 4) -> torch.Tensor:
    """Fully sampled k-space ``(1, coils, ny, nx)`` of a box, with a little noise."""
    generator = seeded(seed)
    image = torch.zeros(1, 1, *SHAPE, dtype=torch.complex64)
    image[..., 10:38, 12 + seed : 36] = 1.0
    maps = simulate_coil_maps(coils, SHAPE, generator=generator)
    return fft2c(maps * image) + air(seed, coils)


def air(seed: int = 0, coils: int = 4) -> torch.Tensor:
    return 0.002 * complex_noise((1, coils, *SHAPE), seeded(100 + seed))


def zeros(seed: int = 0, coils: int = 4) -> torch.Tensor:
    return torch.zeros(1, coils, *SHAPE, dtype=torch.complex64)


EMPTY = {"air": air, "zeros": zeros}


@pytest.mark.parametrize("kind", EMPTY)
@pytest.mark.parametrize("solver", [None, *SOLVERS])
def test_the_prior_leaves_them_out_with_every_solver(pipe, kind, solver, caplog):
    y = torch.cat([signal(1), EMPTY[kind](), signal(2)]) * MASK
    call = {"mask": MASK, "num_inference_steps": 2, "solver": solver}
    generators = [seeded(seed) for seed in range(3)]
    output = pipe(y, **call, generator=generators)
    assert caplog.text.count("in slice 1:") == 1
    assert not output.images[1].any()
    assert float(output.residual[1]) == (1.0 if kind == "air" else 0.0)
    assert torch.isfinite(output.residual).all()
    assert torch.isfinite(output.coil_maps.abs()).all()
    if solver != "dds3d":  # which ties the slices of a volume together
        alone = pipe(y[::2], **call, generator=[seeded(0), seeded(2)])
        assert torch.equal(output.images[::2], alone.images)
    assert not pipe(y[1:2], **call).images.any()


@pytest.mark.parametrize("kind", EMPTY)
def test_samples_starting_images_noise_and_single_coils(pipe, kind):
    y = torch.cat([EMPTY[kind](), signal()]) * MASK
    several = pipe(y, MASK, num_inference_steps=3, num_samples=3, batch_size=2)
    for result in (several.images, several.samples, several.std):
        assert torch.isfinite(result.abs()).all()
        assert not result[0].any()
        assert result[1].any()
    for image in (*BASELINES, "network"):
        started = pipe(y, MASK, num_inference_steps=3, image=image)
        assert not started.images[0].any()
        assert started.images[1].any()
    told = pipe(y, MASK, num_inference_steps=2, noise_std="auto")
    assert not told.images[0].any()
    one_coil = torch.cat([EMPTY[kind](coils=1), signal(coils=1)]) * MASK
    for mask in (MASK, None):
        output = pipe(one_coil, mask, num_inference_steps=2)
        assert not output.images[0].any()
        assert float(output.residual[1]) < 1


@pytest.mark.parametrize("kind", EMPTY)
def test_a_volume_keeps_its_slices(pipe, kind):
    y = torch.cat([EMPTY[kind](), signal(1), signal(2), EMPTY[kind](1)]) * MASK
    output = pipe(y, MASK, num_inference_steps=2, solver=DDS3D(num_slices=2))
    assert [bool(image.any()) for image in output.images] == [False, True, True, False]


@pytest.mark.parametrize("kind", EMPTY)
@pytest.mark.parametrize("method", BASELINES)
def test_baselines(kind, method, caplog):
    y = torch.cat([signal(), EMPTY[kind]()]) * MASK
    output = BaselinePipeline(method)(y, MASK)
    assert "in slice 1:" in caplog.text
    assert not images_of(output)[1].any()
    assert torch.equal(images_of(output)[:1], images_of(BaselinePipeline(method)(y[:1], MASK)))
    assert not images_of(BaselinePipeline(method)(y[1:], MASK)).any()


@pytest.mark.parametrize("kind", EMPTY)
def test_networks(kind, caplog):
    torch.manual_seed(0)
    pipeline = ReconstructionPipeline(MoDL(width=4, iterations=1, predict_std=True))
    pipeline.set_progress_bar_config(disable=True)
    y = torch.cat([EMPTY[kind](), signal()]) * MASK
    output = complete(pipeline(y, MASK))
    assert "in slice 0:" in caplog.text
    assert not images_of(output)[0].any()
    assert not present(output.expected_error)[0].any()
    alone = complete(pipeline(y[1:], MASK))
    assert torch.equal(images_of(output)[1:], images_of(alone))
    assert torch.equal(present(output.expected_error)[1:], present(alone.expected_error))
    assert not images_of(pipeline(y[:1], MASK)).any()


@pytest.mark.parametrize("kind", EMPTY)
def test_contrasts(kind, caplog):
    torch.manual_seed(0)
    sampler = PerContrastSampler(SHAPE, 2, 3.0, center_fraction=0.25)
    pipeline = JointPipeline(HRUNet(width=4, depth=2), sampler)
    pipeline.set_progress_bar_config(disable=True)
    empty = EMPTY[kind]
    first = torch.cat([signal(1), empty(1)])
    y = torch.stack([first, torch.cat([empty(2), empty(3)])])
    output = pipeline(y, generator=seeded(0))
    assert "slices 0 (contrast 1), 1 (contrast 0), 1 (contrast 1):" in caplog.text
    for result in (output.images, output.residual):
        assert torch.isfinite(present(result).abs()).all()
    assert [[bool(image.any()) for image in each] for each in output.images] == [
        [True, False],
        [False, False],
    ]
    assert not pipeline(y[1:], generator=seeded(0)).images.any()


@pytest.mark.parametrize("kind", EMPTY)
def test_prepared_measurements_go_through_again(pipe, kind):
    """The command line prepares first, and gives the maps to the pipeline."""
    prepared = prepare_measurement(torch.cat([signal(), EMPTY[kind]()]) * MASK, MASK)
    assert prepared.empty.tolist() == [False, True]
    assert torch.isfinite(present(prepared.coil_maps).abs()).all()
    again = pipe(prepared.y, prepared.mask, coil_maps=prepared.coil_maps, num_inference_steps=1)
    assert not again.images[1].any()
    maps = present(prepared.coil_maps).clone()
    maps[1] = 0  # as other programs have them for such slices
    assert not pipe(prepared.y, MASK, coil_maps=maps, num_inference_steps=1).images[1].any()
    maps[0] = 0
    with pytest.raises(InputError, match="zero everywhere"):
        pipe(prepared.y, MASK, coil_maps=maps, num_inference_steps=1)


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("coils", [1, 4])
def test_noise_is_noise_whatever_the_coils_share(name, coils):
    taken_for_signal = 0
    for seed in range(20):
        generator = seeded(seed)
        mask = make_mask(name, SHAPE, 3, generator=generator)
        mixing = torch.eye(coils) + 0.5 * complex_noise((coils, coils), generator)
        noise = complex_noise((1, coils, *SHAPE), generator)
        noise = torch.einsum("dc,bcyx->bdyx", mixing, noise) * 10.0 ** (seed - 10)
        taken_for_signal += not bool(find_empty(noise * mask, mask))
    assert taken_for_signal <= 1


@pytest.mark.parametrize("snr", [5, 30, 1000])
def test_weak_scans_are_not_taken_for_air(snr):
    """``snr`` is that of the brightest sample of k-space: 5 leaves nothing to be seen."""
    for seed in range(60):
        case = random_case(seed)
        if not case.is_scan or ": noise," in case.name:  # maps of noise make noise of any image
            continue
        mask = present(case.operator.mask)
        clean = case.operator(case.image)
        noise = complex_noise(tuple(clean.shape), seeded(seed)) * mask
        y = clean / clean.abs().amax() * snr + noise
        assert not bool(find_empty(y, mask)), case.name


def test_scans_that_are_not_as_usual_are_not_taken_for_air():
    generator = seeded(3)
    everything = torch.ones(1, 1, *SHAPE, dtype=torch.bool)
    noise = complex_noise((1, 2, *SHAPE), generator)
    clean = signal(coils=2)
    point = torch.zeros(1, 1, *SHAPE, dtype=torch.complex64)
    point[..., 20, 30] = 20.0
    random_phase = torch.zeros(1, 1, *SHAPE, dtype=torch.complex64)
    random_phase[..., 10:30, 10:30] = 4 * complex_noise((20, 20), generator)
    scans = {
        "corner": torch.fft.ifftshift(clean, dim=(-2, -1)) + noise,
        "a point source": fft2c(point) + noise,
        "random phases": fft2c(random_phase) + noise,
        "few samples": noise,
    }
    for name, y in scans.items():
        mask = everything.clone()
        if name == "few samples":
            mask[..., 3:] = False
        assert not bool(find_empty(y * mask, mask)), name
