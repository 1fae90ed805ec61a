"""Reconstruction networks: common properties, and the mathematics of each."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gaussian import complex_noise, seeded
from measured import measurement, part
from narrow import present
from networks import KINDS, small_network

from ctxrecon.errors import InputError
from ctxrecon.fourier import fft2c, ifft2c
from ctxrecon.linalg import damped_solve
from ctxrecon.operators import CartesianSense
from ctxrecon.reconstructors import (
    RECONSTRUCTORS,
    ISTANetPlus,
    MoDL,
    Reconstructor,
    ResNetGenerator,
    UnrolledGenerator,
    VarNet,
    hard_data_consistency,
    intensity,
)
from ctxrecon.reconstructors.blocks import ResidualUNet
from ctxrecon.reconstructors.varnet import _improved

TEXT = 5


def build(name: str, **options: Any) -> Reconstructor:
    """A small network whose zero-initialized layers are perturbed."""
    small: dict[str, dict[str, int]] = {
        "unet": {"depth": 2},
        "varnet": {"depth": 2, "cascades": 2},
        "ista_net": {"phases": 2},
        "pnp": {"iterations": 2},
    }
    return small_network(name, width=6, **small.get(name, {}), **options).eval()


@pytest.fixture(params=tuple(RECONSTRUCTORS))
def name(request) -> str:
    return request.param


@torch.no_grad()
def test_a_batch_gives_what_its_slices_give(name):
    network = build(name)
    operator, y, _ = measurement(batch=3)
    together = network(operator, y).images
    alone = torch.cat([network(part(operator, i), y[i : i + 1]).images for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize(("shape", "coils"), [((17, 22), 3), ((16, 16), 1)])
def test_any_matrix_size_and_number_of_coils(name, shape, coils):
    operator, y, _ = measurement(shape=shape, coils=coils)
    images = build(name)(operator, y).images
    assert images.shape == (2, *shape)
    assert images.dtype == torch.complex64


@torch.no_grad()
def test_intensity_passes_through(name):
    network = build(name)
    operator, y, _ = measurement()
    factor = torch.tensor([250.0, 0.02])
    scaled = network(operator, y * factor[:, None, None, None]).images
    expected = network(operator, y).images * factor[:, None, None]
    torch.testing.assert_close(scaled / expected, torch.ones_like(scaled), rtol=1e-3, atol=1e-3)


def test_every_parameter_gets_a_gradient(name):
    network = build(name, text_width=TEXT, predict_std=True).train()
    operator, y, x = measurement()
    embeds = torch.randn(2, TEXT)
    output = network(operator, y, embeds)
    loss = output.images.abs().sum() + output.expected_error.sum()
    if output.penalty is not None:
        loss = loss + output.penalty.sum()
    if network.learns_prior:
        loss = loss + network.prior_loss(x, [seeded(0), seeded(1)], embeds).sum()
    loss.backward()
    missing = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert not missing


@torch.no_grad()
def test_text_matters_where_it_is_read(name):
    network = build(name, text_width=TEXT)
    operator, y, _ = measurement()
    embeds = torch.randn(2, TEXT, generator=seeded(1))
    one, other = (network(operator, y, e).images for e in (embeds, -embeds))
    assert not torch.allclose(one, other, rtol=1e-3)


@pytest.mark.parametrize(
    ("text_width", "embeds", "sentence"),
    [
        (None, torch.zeros(2, TEXT), "reads no prompt"),
        (TEXT, None, r"shape \(2, 5\), got none"),
        (TEXT, torch.zeros(1, TEXT), r"got \(1, 5\)"),
    ],
)
def test_embeddings_that_do_not_fit(text_width, embeds, sentence):
    operator, y, _ = measurement()
    with pytest.raises(InputError, match=sentence):
        build("unet", text_width=text_width)(operator, y, embeds)


@torch.no_grad()
def test_save_and_load(name, tmp_path):
    network = build(name, predict_std=True, text_width=TEXT)
    network.save_pretrained(tmp_path)
    assert [path.suffix for path in sorted(tmp_path.iterdir())] == [".json", ".safetensors"]
    again = RECONSTRUCTORS[name].from_pretrained(tmp_path)
    operator, y, _ = measurement()
    embeds = torch.ones(2, TEXT)
    first, second = network(operator, y, embeds), again(operator, y, embeds)
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.expected_error, second.expected_error)


@torch.no_grad()
@pytest.mark.parametrize("name", ["resnet", "unrolled", "modl", "ista_net"])
def test_silent_convolutions_do_no_harm(name):
    """Fully sampled and without noise, data consistency alone gives the image itself."""
    network = KINDS[name](width=4)
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.zeros_(module.weight)
            if module.bias is not None:
                torch.nn.init.zeros_(module.bias)
    operator, _, image = measurement()
    full = CartesianSense(torch.ones_like(operator.mask), operator.coil_maps)
    torch.testing.assert_close(network(full, full(image)).images, image, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_hard_data_consistency_is_the_papers_formula():
    operator, y, _ = measurement()
    v = complex_noise(operator.domain_shape, seeded(5))
    maps, mask = present(operator.coil_maps), operator.mask
    formula = (maps.conj() * ifft2c(y + ~mask * fft2c(maps * v[:, None]))).sum(dim=1)
    found = hard_data_consistency(operator, v, operator.adjoint(y))
    torch.testing.assert_close(found, formula, rtol=1e-4, atol=1e-5)
    single = CartesianSense(mask)
    y = single(v + 1)
    kept = single(hard_data_consistency(single, v, single.adjoint(y)))
    torch.testing.assert_close(kept, y, rtol=1e-4, atol=1e-5)  # what was measured stays


@torch.no_grad()
@pytest.mark.parametrize(
    "network", [UnrolledGenerator(width=4, iterations=2), VarNet(width=4, depth=1, cascades=2)]
)
def test_unrolled_networks_start_as_gradient_descent(network):
    network.steps.copy_(torch.tensor([0.5, 0.3]))
    operator, y, _ = measurement()
    x = operator.adjoint(y)
    for step in (0.5, 0.3):
        x = x - step * operator.adjoint(operator(x) - y)
    torch.testing.assert_close(network(operator, y).images, x, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_learned_maps_have_unit_power_inside_and_none_outside():
    network = build("varnet", learned_maps=True)
    operator, y, _ = measurement()
    maps = present(operator.coil_maps).clone()
    maps[..., :4] = 0
    improved = _improved(network.maps_network, maps)
    power = improved.abs().square().sum(dim=1)
    torch.testing.assert_close(power[..., 4:], torch.ones_like(power[..., 4:]))
    assert not power[..., :4].any()
    assert not torch.allclose(improved, maps)
    assert network(operator, y).images.shape == operator.domain_shape


def test_ista_net_shrinks_softly_and_its_penalty_is_of_the_inverse():
    network = ISTANetPlus(width=4, phases=1)
    phase = network.stages[0]
    r = torch.randn(1, 2, 9, 8)
    with torch.no_grad():
        features = phase.inward(r)
        coefficients = phase.transform(features)
        threshold = float(coefficients.abs().median())
        phase.threshold.fill_(threshold)
        correction, asymmetry = phase(r, None)
        shrunk = torch.nn.functional.softshrink(coefficients, threshold)
        torch.testing.assert_close(correction, phase.outward(phase.inverse(shrunk)))
        back = phase.inverse(coefficients)
        torch.testing.assert_close(asymmetry, (back - features).square().mean()[None])
    operator, y, _ = measurement()
    with torch.no_grad():
        one, two = (ISTANetPlus(width=4, phases=n) for n in (1, 2))
        two.stages[0].load_state_dict(one.stages[0].state_dict())
        for value in two.stages[1].parameters():
            value.zero_()
        torch.testing.assert_close(two(operator, y).penalty, one(operator, y).penalty)  # their sum


def test_inner_products_stay_whole_under_autocast():
    operator, y, _ = measurement()
    rhs, damping = 1e3 * operator.adjoint(y), torch.full((1,), 0.05)
    expected = damped_solve(operator.normal, rhs, damping, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = damped_solve(operator.normal, rhs, damping, 8)
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    "options",
    [{"width": 0}, {"width": 2.5}, {"iterations": 0}, {"cg_iterations": True}],
)
def test_counts_that_make_no_network(options):
    with pytest.raises(InputError, match="a whole number of 1 or more"):
        MoDL(**options)


@torch.no_grad()
def test_the_smallest_matrices(name):
    operator, y, _ = measurement(shape=(7, 6))
    images = KINDS[name](width=4)(operator, y).images
    assert torch.isfinite(torch.view_as_real(images)).all()


@torch.no_grad()
def test_intensity_of_a_single_point_and_of_nothing():
    point = torch.zeros(2, 20, 20, dtype=torch.complex64)
    point[0, 3, 4] = torch.tensor(5j)
    torch.testing.assert_close(intensity(point).flatten(), torch.tensor([5.0, 1.0]))


def test_predicted_errors_have_a_floor():
    head = present(build("unet", predict_std=True).error_head)
    last = head.layers[-1]
    assert isinstance(last, torch.nn.Conv2d)
    with torch.no_grad():
        present(last.bias).fill_(-1e4)
        found = head(*(complex_noise((2, 8, 8), seeded(n)) for n in (0, 1)))
    assert float(found.min()) > 0
    assert torch.isfinite(found.log()).all()


def test_modl_solves_its_last_system():
    """The output fulfils (AᴴA + λ) x = Aᴴy + λ z for some z of the network."""
    network = MoDL(width=4, iterations=1, cg_iterations=60)
    operator, y, _ = measurement()
    seen: list[torch.Tensor] = []
    network.networks[0].register_forward_hook(lambda _, __, out: seen.append(out))
    with torch.no_grad():
        x = network(operator, y).images
        zero_filled = operator.adjoint(y)
        scale = torch.quantile(zero_filled.abs().flatten(1), 0.99, dim=1)[:, None, None]
        z = zero_filled + torch.view_as_complex(seen[0].movedim(1, -1).contiguous()) * scale
        lam = network.damping
        torch.testing.assert_close(
            operator.normal(x) + lam * x, zero_filled + lam * z, rtol=1e-3, atol=1e-3
        )
    assert float(lam) == pytest.approx(0.05, abs=1e-4)


def test_modl_with_networks_of_its_own_for_each_iteration():
    torch.manual_seed(0)
    network = MoDL(width=4, iterations=3, depth=2, shared=False, damping=0.3)
    torch.testing.assert_close(network.damping, torch.full((3,), 0.3))
    operator, y, _ = measurement()
    output = network(operator, y).images
    output.abs().sum().backward()
    for each in network.networks:  # the last layers alone move at first
        assert float(each.last.weight.grad.norm()) > 0
    assert bool((network.raw_damping.grad != 0).all())
    with pytest.raises(InputError, match="positive damping"):
        MoDL(damping=0.0)
    with pytest.raises(InputError, match="depth of 0 or more"):
        MoDL(depth=-1)


@pytest.mark.parametrize("shape", [(16, 24), (13, 9), (5, 5)])
def test_a_residual_u_net_takes_any_size_and_starts_at_zero(shape):
    network = ResidualUNet(2, 4, 2, None)
    x = torch.randn(2, 2, *shape, generator=seeded(0))
    assert not network(x, None).any()
    torch.nn.init.normal_(network.last.weight)
    found = network(x, None)
    assert found.shape == x.shape
    torch.testing.assert_close(found[1:], network(x[1:], None), rtol=1e-4, atol=1e-5)


def test_a_plain_generator_is_smaller_than_the_published_unrolled_one():
    """Five blocks and three convolutions; three iterations of two blocks."""
    plain, unrolled = ResNetGenerator(width=64), UnrolledGenerator(width=64)
    convolutions = [
        sum(isinstance(m, torch.nn.Conv2d) for m in network.modules())
        for network in (plain, unrolled)
    ]
    assert convolutions == [1 + 2 * 5 + 3, 3 * (1 + 2 * 2 + 1)]
