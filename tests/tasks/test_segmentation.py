"""The networks with a latent: sizes, divergences, likelihoods, draws."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from gaussian import complex_noise, seeded
from torch.distributions import Normal
from torch.distributions import kl_divergence as exact_divergence

from ctxrecon.errors import InputError
from ctxrecon.masks.learned import PatternGenerator
from ctxrecon.tasks import (
    PRESETS,
    Gaussian,
    ImageDecoder,
    LatentSegmenter,
    PosteriorEncoder,
    kl_divergence,
    segmentation_loss,
)

TINY = {"width": 4, "depth": 3, "layers": 1, "latent_channels": 2}


def segmenter(**options: Any) -> LatentSegmenter:
    torch.manual_seed(0)
    return LatentSegmenter(**{"num_classes": 3, **TINY, **options}).eval()


def count(network: torch.nn.Module) -> float:
    return sum(value.numel() for value in network.parameters()) / 1e6


def test_the_paper_preset_has_the_published_sizes():
    with torch.device("meta"):
        network = LatentSegmenter(**PRESETS["paper"])
        posterior = PosteriorEncoder(**PRESETS["paper"])
        image = ImageDecoder(**PRESETS["paper"])
    sampler = PatternGenerator((128, 128), lines=False, embedding=1)
    prior = count(network.encoder) + count(network.latent_head)
    assert prior == pytest.approx(34.3, rel=0.01)
    assert count(posterior) == pytest.approx(34.3, rel=0.01)
    assert count(network.decoder) == pytest.approx(49.5, rel=0.01)
    assert count(image) == pytest.approx(49.5, rel=0.01)
    assert count(network) + count(sampler) == pytest.approx(83.8, rel=0.01)
    assert network.latent_shape((128, 128)) == (16, 16, 16)


class TestDivergence:
    def test_against_torch(self):
        source = seeded(0)
        first, second = (
            Gaussian(*(torch.randn(50, generator=source) for _ in range(2))) for _ in range(2)
        )
        exact = exact_divergence(
            *(Normal(one.mean, (one.log_variance / 2).exp()) for one in (first, second))
        )
        torch.testing.assert_close(kl_divergence(first, second), exact)
        assert bool((kl_divergence(first, first) == 0).all())

    def test_samples(self):
        drawn = Gaussian(torch.tensor(2.0), torch.tensor(math.log(9.0)))
        found = drawn.sample(torch.randn(100_000, generator=seeded(0)))
        assert float(found.mean()) == pytest.approx(2, abs=0.05)
        assert float(found.std()) == pytest.approx(3, rel=0.02)

    def test_the_bound_is_below_the_likelihood(self):
        """``log p(z) ≥ E_q log p(z|h) − KL(q ‖ p)``, equal where q is the posterior."""
        grid = torch.linspace(-12, 12, 20_001).double()
        step = float(grid[1] - grid[0])
        prior = Gaussian(torch.tensor(0.3).double(), torch.tensor(0.2).double())
        # Two pixels whose logits are linear in h; labels 1 and 0.
        logits = torch.zeros(len(grid), 2, 1, 2).double()
        logits[:, 1, 0, 0], logits[:, 1, 0, 1] = 2 * grid - 1, grid
        labels = torch.tensor([[[1, 0]]]).expand(len(grid), -1, -1)
        log_likelihood = -2 * segmentation_loss(logits, labels)  # the sum of two pixels

        def density(one: Gaussian) -> torch.Tensor:
            return Normal(one.mean, (one.log_variance / 2).exp()).log_prob(grid)

        exact = torch.logsumexp(log_likelihood + density(prior), 0) + math.log(step)
        bounds = []
        for mean in torch.linspace(-1, 2, 31).double():
            for log_variance in torch.linspace(-2, 1, 31).double():
                q = Gaussian(mean, log_variance)
                expected = (density(q).exp() * log_likelihood).sum() * step
                bounds.append(float(expected - kl_divergence(q, prior)))
        assert max(bounds) <= float(exact) + 1e-9
        assert max(bounds) > float(exact) - 0.05  # the posterior is nearly normal
        assert min(bounds) < float(exact) - 1


class TestDraws:
    def test_they_do_not_depend_on_the_batch(self):
        network = segmenter()
        images = complex_noise((2, 16, 24), seeded(1))

        def noise(seeds):
            return network.draw_noise((16, 24), [seeded(seed) for seed in seeds])

        together = network(images, torch.stack([noise([1, 2, 3]), noise([4, 5, 6])]))
        assert together.shape == (2, 3, 3, 16, 24)
        for slice_, seeds in enumerate(([1, 2, 3], [4, 5, 6])):
            for draw, seed in enumerate(seeds):
                alone = network(images[slice_ : slice_ + 1], noise([seed])[None])[0, 0]
                torch.testing.assert_close(together[slice_, draw], alone)
        assert not torch.allclose(together[0, 0], together[0, 1])

    def test_without_a_latent_all_are_the_same(self):
        network = segmenter(deterministic=True)
        images = complex_noise((1, 16, 16), seeded(1))
        noise = network.draw_noise((16, 16), [seeded(1), seeded(2)])[None]
        found = network(images, noise)
        assert torch.equal(found[:, 0], found[:, 1])
        features, _ = network.encode(images)
        mean = segmenter().prior(features).mean
        torch.testing.assert_close(network.decode(mean, features), found[:, 0])

    @pytest.mark.parametrize("sees", [False, True])
    def test_what_the_decoder_sees(self, sees):
        network = segmenter(decoder_sees_measurement=sees)
        latent = torch.randn(1, *network.latent_shape((16, 16)), generator=seeded(0))
        features = [torch.randn(1, 4, 4, 4, generator=seeded(seed)) for seed in (1, 2)]
        one, other = (network.decode(latent, each) for each in features)
        assert torch.equal(one, other) != sees
        assert one.shape == (1, 3, 16, 16)

    def test_any_intensity(self):
        network, image = segmenter(), ImageDecoder(**TINY).eval()
        images = complex_noise((1, 16, 16), seeded(1))
        noise = network.draw_noise((16, 16), [seeded(0)])[None]
        torch.testing.assert_close(network(images, noise), network(1e-4 * images, noise))
        scaled = [scale * images for scale in (1.0, 1e-4)]
        one, other = (image(*network.encode(each), each) for each in scaled)
        for first, second in zip(one, other, strict=True):
            torch.testing.assert_close(first * 1e-4, second)
        assert one[0].dtype == torch.complex64
        assert bool((one[1] > 0).all())

    def test_sizes_that_do_not_fit(self):
        with pytest.raises(InputError, match="multiples of 4"):
            segmenter().encode(complex_noise((1, 18, 16), seeded(0)))
        with pytest.raises(InputError, match="even `width"):
            LatentSegmenter(width=3)
        with pytest.raises(InputError, match="two classes"):
            LatentSegmenter(num_classes=1)


def test_the_posterior_sees_the_segmentation():
    torch.manual_seed(0)
    network = PosteriorEncoder(num_classes=3, **TINY).eval()
    images = complex_noise((1, 16, 16), seeded(1))
    labels = torch.zeros(1, 16, 16, dtype=torch.uint8)
    found = [network(images, labels + value).mean for value in range(3)]
    assert found[0].shape == (1, 2, 4, 4)
    assert not torch.allclose(found[0], found[1])
    assert not torch.allclose(found[1], found[2])


def test_segmentation_loss():
    logits = torch.tensor([0.0, math.log(3)]).view(1, 2, 1, 1).expand(1, 2, 4, 4)
    labels = torch.zeros(1, 4, 4, dtype=torch.uint8)
    labels[:, :2] = 1
    expected = -(math.log(0.75) + math.log(0.25)) / 2
    assert float(segmentation_loss(logits, labels)) == pytest.approx(expected)


def test_weights_round_trip(tmp_path):
    for network in (segmenter(), PosteriorEncoder(**TINY), ImageDecoder(**TINY)):
        network.save_pretrained(tmp_path)
        again = type(network).from_pretrained(tmp_path)
        for name, value in network.state_dict().items():
            assert torch.equal(again.state_dict()[name], value)
