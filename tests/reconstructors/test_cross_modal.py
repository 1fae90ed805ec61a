"""Network with a reference of another contrast, and its critics."""

from __future__ import annotations

import pytest
import torch
from gaussian import complex_noise, seeded
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from ctxrecon.errors import InputError
from ctxrecon.operators import CartesianSense, sense_operator
from ctxrecon.reconstructors import CROSS_MODAL, CrossModal, HRUNet, SpectralCritic, VarNet
from ctxrecon.reconstructors.cross_modal import Aligner
from ctxrecon.reconstructors.warp import endpoint_error, smoothness, warp

SMALL = {
    "width": 4,
    "depth": 2,
    "cascades": 2,
    "synthesis_cascades": 1,
    "align_width": 4,
    "align_depth": 2,
}


def small(moved: bool = True, **options) -> CrossModal:
    """A tiny network; layers that start at zero are moved."""
    torch.manual_seed(3)
    network = CrossModal(**{**SMALL, **options})
    if moved:
        with torch.no_grad():
            for value in network.parameters():
                value += 0.1 * torch.randn(value.shape)
    return network.eval()


@pytest.fixture
def measured(generator: torch.Generator) -> tuple[CartesianSense, torch.Tensor, torch.Tensor]:
    """An operator with two coils, its data, and a reference."""
    mask = torch.rand(2, 1, 20, 18, generator=generator) < 0.4
    maps = complex_noise((2, 2, 20, 18), generator)
    maps = maps / maps.abs().square().sum(dim=1, keepdim=True).sqrt()
    operator = CartesianSense(mask, maps)
    y = operator(complex_noise((2, 20, 18), generator))
    return operator, y, complex_noise((2, 20, 18), generator)


def test_without_guidance_it_is_varnet_to_the_bit(measured):
    operator, y, reference = measured
    torch.manual_seed(5)
    varnet = VarNet(width=4, depth=2, cascades=3)
    with torch.no_grad():
        for value in varnet.parameters():
            value += 0.1 * torch.randn(value.shape)
    network = small(guidance="none", passes=1, cascades=3)
    network.reconstructor.load_state_dict(varnet.state_dict())
    output = network(operator, y, reference)
    assert torch.equal(output.images, varnet(operator, y).images)
    torch.manual_seed(7)
    fresh = VarNet(width=4, depth=2, cascades=3)
    torch.manual_seed(7)
    same = CrossModal(**{**SMALL, "guidance": "none", "passes": 1, "cascades": 3})
    for name, value in fresh.state_dict().items():
        assert torch.equal(value, same.reconstructor.state_dict()[name]), name


def test_the_recurrent_one_is_hru_net_with_the_guide_as_first_contrast(measured):
    operator, y, reference = measured
    network = small(recurrent=True, guidance="aligned", passes=1, alignment=False)
    hru = HRUNet(width=4, depth=2, blocks=2).eval()
    hru.networks.load_state_dict(network.reconstructor.networks.state_dict())
    whole = CartesianSense(torch.ones(1, 1, 20, 18, dtype=torch.bool), operator.coil_maps)
    both = torch.stack([whole(reference), y], dim=1)
    expected = hru([whole, operator], both).images[:, 1]
    found = network(operator, y, reference).images
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    other = network(operator, y, torch.roll(reference, 3, dims=1)).images
    assert not torch.allclose(found, other)


@pytest.mark.parametrize("guidance", ["synthetic", "aligned"])
def test_the_reference_reaches_the_reconstruction_where_it_guides(measured, guidance):
    operator, y, reference = measured
    other = torch.roll(reference, 3, dims=1)
    guided = small(guidance=guidance)
    assert not torch.allclose(
        guided(operator, y, reference).images, guided(operator, y, other).images
    )
    plain = small(guidance="none", passes=1)
    one, two = plain(operator, y, reference), plain(operator, y, other)
    assert torch.equal(one.images, two.images)
    assert not torch.allclose(one.synthetic, two.synthetic)


def test_it_starts_with_the_reference_where_it_is(measured):
    operator, y, reference = measured
    output = small(moved=False)(operator, y, reference)
    assert not output.displacement.any()
    torch.testing.assert_close(output.aligned, reference)
    assert tuple(output.displacement.shape) == (2, 2, 20, 18)


def test_what_it_gives_belongs_together(measured):
    operator, y, reference = measured
    network = small()
    output = network(operator, y, reference)
    assert output.displacement.abs().max() > 0.01
    torch.testing.assert_close(output.aligned, warp(reference, output.displacement))
    data = network.normalize(operator, y, reference)
    synthetic = network.synthesize(data, output.aligned / data.reference_scale) * data.scale
    torch.testing.assert_close(output.synthetic, synthetic)


def test_an_unaligned_guide_is_there_from_the_first_pass(measured):
    operator, y, reference = measured
    network = small(alignment=False, passes=1, guidance="aligned")
    output = network(operator, y, reference)
    torch.testing.assert_close(output.aligned, reference)
    assert not output.displacement.any()
    assert not torch.allclose(
        output.images, network(operator, y, torch.roll(reference, 3, dims=1)).images
    )


@pytest.mark.parametrize("guidance", ["synthetic", "aligned"])
def test_a_single_pass_is_guided_by_the_reference_aligned_to_the_zero_filled_image(
    measured, guidance
):
    operator, y, reference = measured
    network = small(guidance=guidance, passes=1)
    output = network(operator, y, reference)
    data = network.normalize(operator, y, reference)
    aligned, displacement = network.align(data, data.zero_filled)
    assert displacement.abs().max() > 0.01
    torch.testing.assert_close(output.displacement, displacement)
    torch.testing.assert_close(output.aligned, aligned * data.reference_scale)
    synthetic = network.synthesize(data, aligned)
    torch.testing.assert_close(output.synthetic, synthetic * data.scale)
    guide = aligned if guidance == "aligned" else synthetic
    images = network.reconstructor(data, data.zero_filled, guide)
    torch.testing.assert_close(output.images, images * data.scale)


def test_units_of_data_and_of_reference_are_free(measured):
    operator, y, reference = measured
    network = small()
    one, other = network(operator, y, reference), network(operator, 7 * y, 0.01 * reference)
    torch.testing.assert_close(other.images, 7 * one.images, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(other.synthetic, 7 * one.synthetic, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(other.aligned, 0.01 * one.aligned, rtol=1e-3, atol=1e-5)


def test_slices_do_not_see_each_other(measured):
    operator, y, reference = measured
    network = small()
    together = network(operator, y, reference)
    for item in range(2):
        part = slice(item, item + 1)
        alone = network(operator[part], y[part], reference[part])
        for name in ("images", "aligned", "synthetic", "displacement"):
            torch.testing.assert_close(together[name][part], alone[name], rtol=1e-4, atol=1e-5)


def test_the_synthesis_can_be_held_to_the_data(measured):
    operator, y, reference = measured
    with_data = small(data_consistency=True)
    half = with_data(operator, y, reference).synthetic
    assert not torch.allclose(half, with_data(operator, 2 * y, reference).synthetic / 2 + 1)
    assert with_data.synthesizer.steps is not None
    assert small().synthesizer.steps is None


def test_prompts_modulate(measured):
    operator, y, reference = measured
    network = small(text_width=6)
    embeds = torch.randn(2, 6, generator=seeded(1))
    one = network(operator, y, reference, embeds)
    other = network(operator, y, reference, -embeds)
    assert not torch.allclose(one.images, other.images)
    assert not torch.allclose(one.synthetic, other.synthetic)
    with pytest.raises(InputError, match="prompt embeddings"):
        network(operator, y, reference)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"guidance": "both"}, "both"),
        ({"guidance": "none", "passes": 2}, "passes=1"),
        ({"alignment": False, "passes": 2}, "passes=1"),
        ({"width": 0}, "width"),
    ],
)
def test_options_that_make_no_network(options, said):
    with pytest.raises(InputError, match=said):
        small(**options)


def test_references_and_operators_that_do_not_fit(measured):
    operator, y, reference = measured
    network = small()
    with pytest.raises(InputError, match="reference` of shape"):
        network(operator, y, reference[:, :-1])
    with pytest.raises(InputError, match="float32"):
        network(operator, y, reference.abs())
    maps = complex_noise((1, 2, 2, 20, 18), seeded(2))
    with pytest.raises(InputError, match="num_maps=1"):
        network(sense_operator(operator.mask[:1], maps), y[:1], reference[:1])


def test_it_saves_and_loads(measured, tmp_path):
    operator, y, reference = measured
    network = small(guidance="aligned")
    network.save_pretrained(tmp_path)
    loaded = CrossModal.from_pretrained(tmp_path).eval()
    assert loaded.guidance == "aligned"
    assert torch.equal(
        loaded(operator, y, reference).images, network(operator, y, reference).images
    )


def test_the_papers_size():
    """27.86 million parameters with both critics; 8 U-Nets of 2.455 and critics of 3.507."""
    with torch.device("meta"):
        network, critic = CROSS_MODAL["paper"](guidance="none", passes=1), SpectralCritic()
    count = sum(value.numel() for value in network.parameters())
    of_critic = sum(value.numel() for value in critic.parameters())
    assert of_critic == pytest.approx(3.507e6, rel=1e-3)
    assert count + 2 * of_critic == pytest.approx(27.86e6, rel=0.03)
    assert 50_000 < sum(value.numel() for value in CROSS_MODAL["small"]().parameters()) < 2e6


def test_a_known_shift_is_found():
    """Three pixels of a textured disk, by the l1 distance of the same contrast."""
    torch.manual_seed(0)
    y, x = torch.meshgrid(torch.arange(48.0) - 23, torch.arange(48.0) - 24, indexing="ij")
    head = (y / 18) ** 2 + (x / 15) ** 2 < 1
    texture = sum(torch.cos(a * y + b * x + a) for a, b in ((0.5, 0.2), (-0.3, 0.6), (0.7, -0.5)))
    image = torch.where(head, 1 + 0.3 * texture, 0)[None].to(torch.complex64)
    shift = torch.tensor([3.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 48, 48)
    fixed = warp(image, shift)
    aligner = Aligner(4, 3)
    optimizer = torch.optim.Adam(aligner.parameters(), lr=5e-3)
    for _ in range(100):
        found = aligner(image, fixed)
        distance = (warp(image, found) - fixed).abs().mean()
        loss = distance + 0.03 * smoothness(found, image).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert endpoint_error(found.detach(), shift, fixed.abs() > 0.1) <= 0.5


class TestSpectralCritic:
    """Bounded slopes, and scores that estimate a distance."""

    def test_scores_of_each_image_alone(self):
        critic = SpectralCritic(width=4, depth=3).eval()
        images = complex_noise((3, 17, 20), seeded(0))
        together = critic(critic.seen(images))
        alone = torch.cat([critic(critic.seen(images[i : i + 1])) for i in range(3)])
        torch.testing.assert_close(together, alone)
        assert together.shape == (3,)

    def test_its_slope_is_bounded(self):
        critic = SpectralCritic(width=4, depth=2)
        with torch.no_grad():
            for value in critic.parameters():
                value *= 50  # the norm takes it away again
        one, other = complex_noise((8, 16, 16), seeded(0)), complex_noise((8, 16, 16), seeded(1))
        for _ in range(20):  # iterations of the power method
            critic(critic.seen(one))
        critic.eval()
        with torch.no_grad():
            change = (critic(critic.seen(one)) - critic(critic.seen(other))).abs()
        distance = (one - other).abs().flatten(1).norm(dim=1)
        assert bool((change <= critic.lipschitz * distance).all())
        assert critic.lipschitz == 3**5 / 2
        for layer in (*critic.layers[0], critic.last):
            largest = torch.linalg.matrix_norm(layer.weight.detach().flatten(1), ord=2)
            assert largest <= 1.05

    def test_what_it_cannot_judge(self):
        critic = SpectralCritic(width=4, depth=3)
        with pytest.raises(InputError, match="complex"):
            critic.seen(torch.ones(1, 16, 16))
        with pytest.raises(InputError, match="4 pixels"):
            critic.seen(complex_noise((1, 3, 16), seeded(0)))


def test_signs_of_the_transport_in_one_dimension():
    """The critic is large on fakes; its dual value is |μ|, and x + b moves to the data."""
    torch.manual_seed(0)
    shift = 1.5
    critic = nn.Sequential(
        spectral_norm(nn.Linear(1, 16)), nn.LeakyReLU(0.2), spectral_norm(nn.Linear(16, 1))
    )
    b = torch.zeros(1, requires_grad=True)
    judge = torch.optim.Adam(critic.parameters(), lr=1e-2)
    fake, real = torch.randn(512, 1), torch.randn(512, 1) + shift
    for _ in range(150):
        loss = critic(real).mean() - critic(fake).mean()
        judge.zero_grad()
        loss.backward()
        judge.step()
    assert -loss.item() == pytest.approx(shift, rel=0.2)
    (gradient,) = torch.autograd.grad(critic(fake + b).mean(), b)
    assert gradient < 0  # so that descent makes b larger, towards the data
