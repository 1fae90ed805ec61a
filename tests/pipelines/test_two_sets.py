"""Two sets of coil maps through baselines and pipelines, and the choice of one or two."""

from __future__ import annotations

import pytest
import torch
from narrow import complete, images_of, present
from torch import Tensor

from ctxrecon.baselines import BASELINES
from ctxrecon.coils import (
    estimate_coil_maps,
    find_calibration_region,
    mvue,
    root_sum_of_squares,
    simulate_coil_maps,
)
from ctxrecon.errors import InputError
from ctxrecon.fourier import fft2c, ifft2c
from ctxrecon.operators import (
    CartesianSense,
    Crop,
    EachSet,
    SoftSense,
    adjoint_error,
    combine_sets,
    sense_operator,
)
from ctxrecon.pipelines import BaselinePipeline, ReconstructionPipeline
from ctxrecon.reconstructors import RECONSTRUCTORS, VarNet
from ctxrecon.solvers import SOLVERS

SHAPE = (48, 64)


def scan(wraps: bool, *, acceleration: int = 2, coils: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    """k-space, mask and noise-free coil images of an ellipse, larger than the field of view or not.

    The array surrounds a canvas of 64 × 64, of which the field of view shows 48 rows.
    """
    generator = torch.Generator().manual_seed(1)
    maps = simulate_coil_maps(coils, (64, 64), generator=generator)
    y, x = torch.linspace(-1, 1, 64)[:, None], torch.linspace(-1, 1, 64)
    inside = (y / (0.95 if wraps else 0.6)) ** 2 + (x / 0.7) ** 2 < 1
    images = maps * inside * (1 + 0.4 * torch.sin(7 * y) * torch.cos(9 * x))
    middle = images[:, :, 8:56].clone()
    middle[:, :, :8] += images[:, :, 56:]
    middle[:, :, -8:] += images[:, :, :8]
    noise = 1e-3 * torch.randn(middle.shape, dtype=middle.dtype, generator=generator)
    mask = torch.zeros(1, 1, *SHAPE, dtype=torch.bool)
    mask[..., ::acceleration] = True
    mask[..., 22:42] = True
    return mask * (fft2c(middle) + noise), mask, middle


def relative_error(images: Tensor, reference: Tensor) -> float:
    return float((images.abs() - reference).norm() / reference.norm())


# --- the choice -----------------------------------------------------------------------------


def test_one_set_where_the_object_fits_and_two_where_it_wraps():
    fits, mask, _ = scan(wraps=False)
    wraps, _, images = scan(wraps=True)
    assert estimate_coil_maps(fits, mask).shape == (1, 6, *SHAPE)
    maps = estimate_coil_maps(wraps, mask)
    assert maps.shape == (1, 2, 6, *SHAPE)
    # Two sets where the object wraps, one in the middle rows that only one place can reach.
    second = (maps[0, 1] != 0).any(dim=0)
    assert second[:4].any()
    assert second[-4:].any()
    assert not second[16:32].any()
    explained = (maps * (maps.conj() * images[:, None]).sum(dim=2, keepdim=True)).sum(dim=1)
    assert (explained - images).norm() < 0.05 * images.norm()


def test_slices_of_a_batch_are_as_alone():
    """Each with the calibration region of its own mask, and its own number of sets."""
    one, mask, _ = scan(wraps=False)
    two, _, _ = scan(wraps=True)
    narrow = mask.clone()
    narrow[..., 22:28] = narrow[..., 36:42] = False
    narrow[..., ::2] = True
    assert find_calibration_region(narrow) != find_calibration_region(mask)
    masks = torch.cat([mask, narrow, mask])
    kspace = torch.cat([one, one * narrow, two])
    together = estimate_coil_maps(kspace, masks)
    assert together.shape == (3, 2, 6, *SHAPE)
    for number, count in enumerate((1, 1, 2)):
        single = estimate_coil_maps(kspace[number : number + 1], masks[number : number + 1])
        assert single.ndim == 3 + count
        expected = single if count == 2 else single[:, None]
        assert torch.equal(together[number : number + 1, :count], expected)
        assert not together[number, count:].any()


def test_a_fixed_number_of_sets_is_kept():
    kspace, mask, _ = scan(wraps=True)
    assert estimate_coil_maps(kspace, mask, num_maps=1).ndim == 4
    assert estimate_coil_maps(scan(wraps=False)[0], mask, num_maps=2).ndim == 5
    for wrong in (3, "both"):
        with pytest.raises(InputError, match="num_maps"):
            estimate_coil_maps(kspace, mask, num_maps=wrong)  # type: ignore[arg-type]


def test_the_choice_needs_no_samples_beyond_the_region(generator):
    """Four lines are all kept, so nothing can be held back: the first settings are taken."""
    kspace, _, _ = scan(wraps=False)
    mask = torch.zeros(1, 1, *SHAPE, dtype=torch.bool)
    mask[..., 30:34] = True
    assert estimate_coil_maps(kspace * mask, mask).shape == (1, 6, *SHAPE)


@pytest.mark.parametrize("scale", [1e-15, 1e15])
def test_the_choice_does_not_depend_on_units(scale):
    kspace, mask, _ = scan(wraps=True)
    expected, found = (estimate_coil_maps(k, mask) for k in (kspace, scale * kspace))
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)


# --- operators ------------------------------------------------------------------------------


def test_an_operator_on_each_set():
    operator = EachSet(Crop((1, 16, 8), (13, 7)), 2)
    assert operator.domain_shape == (1, 32, 8)
    assert operator.range_shape == (1, 26, 7)
    assert adjoint_error(operator) < 1e-5
    x = torch.randn(3, 32, 8, dtype=torch.complex64)
    assert torch.equal(operator(x)[:, 13:], Crop((1, 16, 8), (13, 7))(x[:, 16:]))


def test_combined_sets():
    x = torch.tensor([3.0 + 0j, 2j, 0.0])
    y = torch.tensor([4j, 0.0, 0.0])
    combined = combine_sets(torch.stack([x, y])[None, :, None])[0, 0]
    torch.testing.assert_close(combined.abs(), torch.tensor([5.0, 2.0, 0.0]))
    assert torch.equal(combined[1:], x[1:])
    # The phase is mostly that of the stronger one: that of 3·3 + 4·4j.
    assert combined[0].angle() == pytest.approx(torch.tensor(16 / 9).atan().item(), rel=1e-5)


def test_the_operator_follows_the_maps():
    kspace, mask, _ = scan(wraps=True)
    maps = estimate_coil_maps(kspace, mask)
    assert isinstance(sense_operator(mask, maps), SoftSense)
    assert isinstance(sense_operator(mask, maps[:, 0]), CartesianSense)
    assert isinstance(sense_operator(mask, None), CartesianSense)


def test_mvue_of_two_sets_is_what_all_coils_see():
    kspace, mask, images = scan(wraps=True, acceleration=1)
    maps = estimate_coil_maps(kspace, mask)
    assert relative_error(mvue(kspace, maps), root_sum_of_squares(images)) < 0.05


# --- baselines and pipelines ----------------------------------------------------------------


@pytest.mark.parametrize("method", BASELINES)
def test_baselines_gain_from_two_sets(method):
    kspace, mask, images = scan(wraps=True)
    reference = root_sum_of_squares(images)
    pipeline = BaselinePipeline(method)
    two = pipeline(kspace, mask)
    assert present(two.coil_maps).ndim == 5
    assert images_of(two).shape == (1, *SHAPE)
    one = pipeline(kspace, mask, coil_maps=estimate_coil_maps(kspace, mask, num_maps=1))
    if method != "zero_filled":
        assert relative_error(images_of(two), reference) < 0.8 * relative_error(
            images_of(one), reference
        )
    assert float(present(two.residual)) < float(present(one.residual))


@pytest.mark.parametrize("method", BASELINES)
def test_a_second_set_of_zeros_changes_nothing(method):
    kspace, mask, _ = scan(wraps=False)
    one = estimate_coil_maps(kspace, mask)
    two = torch.stack([one, torch.zeros_like(one)], dim=1)
    expected, found = (BASELINES[method](sense_operator(mask, maps), kspace) for maps in (one, two))
    torch.testing.assert_close(found[:, : SHAPE[0]], expected, atol=1e-4, rtol=1e-3)
    assert not found[:, SHAPE[0] :].any()


@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_every_solver_takes_two_sets(pipe, solver):
    kspace, mask, _ = scan(wraps=True)
    output = pipe(kspace, mask, solver=solver, num_inference_steps=5, generator=torch.Generator())
    assert output.images.shape == (1, *SHAPE)
    assert output.coil_maps.shape == (1, 2, 6, *SHAPE)
    assert bool(torch.isfinite(output.images.abs()).all())
    assert float(output.residual) < 1


@pytest.mark.parametrize(("samples", "image"), [(1, "cg_sense"), (2, "cg_sense"), (1, "network")])
def test_one_and_two_sets_in_a_batch_are_as_alone(pipe, samples, image):
    """The wrapped slice draws noise for its second image without changing the other's."""
    one, mask, _ = scan(wraps=False)
    two, _, _ = scan(wraps=True)
    call = {"solver": "dds", "num_inference_steps": 3, "num_samples": samples, "image": image}

    def generators(*seeds: int) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    both = pipe(torch.cat([one, two]), mask, ["Knee", "Brain"], generator=generators(3, 4), **call)
    for number, (kspace, prompt) in enumerate(((one, "Knee"), (two, "Brain"))):
        alone = pipe(kspace, mask, prompt, generator=generators(3 + number), **call)
        largest = images_of(alone).abs().amax()
        assert (both.images[number] - images_of(alone)[0]).abs().amax() < 1e-3 * largest
        assert (both.residual[number] - alone.residual[0]).abs() < 1e-4
        if samples > 1:
            assert (both.std[number] - alone.std[0]).abs().amax() < 1e-3 * largest
            assert both.samples.shape == (2, 2, *SHAPE)


def test_an_image_to_start_from_is_divided_among_the_sets(pipe):
    kspace, mask, images = scan(wraps=True)
    image = mvue(fft2c(images), estimate_coil_maps(kspace, mask))
    call = {"solver": "dds", "num_inference_steps": 4, "strength": 0.25}
    output = pipe(kspace, mask, image=image, generator=torch.Generator(), **call)
    assert relative_error(output.images, root_sum_of_squares(images)) < 0.3


@pytest.mark.parametrize("name", sorted(RECONSTRUCTORS))
def test_every_network_takes_two_sets(name):
    torch.manual_seed(0)
    pipeline = ReconstructionPipeline(RECONSTRUCTORS[name]())
    pipeline.set_progress_bar_config(disable=True)
    one, mask, _ = scan(wraps=False)
    two, _, images = scan(wraps=True)
    output = pipeline(torch.cat([one, two]), mask)
    assert images_of(output).shape == (2, *SHAPE)
    assert present(complete(output).coil_maps).ndim == 5
    alone = pipeline(one, mask)
    torch.testing.assert_close(images_of(output)[:1], images_of(alone), atol=1e-4, rtol=1e-3)
    # Networks start at the zero-filled image or a data-consistent one.
    assert relative_error(images_of(output)[1:], root_sum_of_squares(images)) < 0.5


def test_refined_maps_of_two_sets():
    torch.manual_seed(0)
    network = VarNet(learned_maps=True)
    kspace, mask, _ = scan(wraps=True)
    output = ReconstructionPipeline(network)(kspace, mask)
    assert images_of(output).shape == (1, *SHAPE)


def test_maps_of_several_sets_may_be_given():
    kspace, mask, _ = scan(wraps=True)
    maps = estimate_coil_maps(kspace, mask)
    pipeline = BaselinePipeline("cg_sense")
    given, estimated = (pipeline(kspace, mask, coil_maps=m) for m in (maps, None))
    assert torch.equal(images_of(given), images_of(estimated))
    with pytest.raises(InputError, match="do not fit"):
        pipeline(kspace, mask, coil_maps=maps[..., :-1])


def test_the_region_of_ones_own_mask_is_used_by_other_methods_too():
    kspace, mask, _ = scan(wraps=False)
    narrow = mask.clone()
    narrow[..., 22:28] = narrow[..., 36:42] = False
    masks = torch.cat([mask, narrow])
    together = estimate_coil_maps(torch.cat([kspace, kspace * narrow]), masks, method="walsh")
    alone = estimate_coil_maps(kspace, mask, method="walsh")
    assert torch.equal(together[:1], alone)
    assert ifft2c(kspace).shape == together[:1].shape
