"""Networks that InfoMRI is compared with: sizes, inputs, deterministic samples."""

from __future__ import annotations

import pytest
import torch
from gaussian import complex_noise, seeded
from narrow import present

from ctxrecon.errors import InputError
from ctxrecon.fourier import fft2c
from ctxrecon.masks.learned import LOUPE
from ctxrecon.pipelines import TaskPipeline, load_task
from ctxrecon.tasks import PRESETS, UNET_PRESETS, ImageDecoder, LINet, Segmenter, TwoUNets

TINY = {"width": 4, "depth": 3, "layers": 1, "latent_channels": 2}
SHAPE = (16, 16)


def segmenter(kind: str) -> Segmenter:
    torch.manual_seed(0)
    if kind == "li_net":
        return LINet(num_classes=3, **TINY).eval()
    network = TwoUNets(num_classes=3, width=4, depth=2).eval()
    for unet in (network.reconstruction, network.segmentation):  # 0 to start with
        torch.nn.init.normal_(unet.last.weight, std=0.3)
    return network


def scan(slices: int) -> torch.Tensor:
    """K-space of a square, ``(slices, 1, 16, 16)``."""
    images = torch.zeros(slices, *SHAPE, dtype=torch.complex64)
    images[:, 4:12, 5:11] = 1.0
    return fft2c(images + 0.01 * complex_noise((slices, *SHAPE), seeded(3)))[:, None]


def count(*networks: torch.nn.Module) -> float:
    return sum(value.numel() for network in networks for value in network.parameters()) / 1e6


def test_the_paper_presets_have_the_published_sizes():
    """InfoMRI, Tables XIII and XIV."""
    with torch.device("meta"):
        unets = TwoUNets(**UNET_PRESETS["paper"])
        li_net = LINet(**PRESETS["paper"])
    loupe = LOUPE((128, 128), 4.0, lines=False)
    assert count(unets.reconstruction) == pytest.approx(31.0, rel=0.01)
    assert count(unets.segmentation) == pytest.approx(31.0, rel=0.01)
    assert count(unets, loupe) == pytest.approx(62.1, rel=0.01)
    assert count(li_net.encoder) == pytest.approx(34.1, rel=0.01)
    assert count(li_net.label_encoder) == pytest.approx(34.1, rel=0.01)
    assert count(li_net.decoder) == pytest.approx(49.5, rel=0.01)
    assert count(li_net.encoder, li_net.decoder, loupe) == pytest.approx(83.6, rel=0.01)


@pytest.mark.parametrize("kind", ["two_unets", "li_net"])
def test_draws_are_all_the_same(kind):
    network = segmenter(kind)
    images = complex_noise((2, *SHAPE), seeded(1))
    noise = network.draw_noise(SHAPE, [seeded(1), seeded(2), seeded(3)])[None].repeat(2, 1, 1)
    logits = network(images, noise)
    assert logits.shape == (2, 3, 3, *SHAPE)
    assert torch.equal(logits[:, 0], logits[:, 2])
    torch.testing.assert_close(network(1e-4 * images, noise), logits)
    alone = network(images[1:], noise[1:])
    torch.testing.assert_close(alone, logits[1:])
    pipe = TaskPipeline(LOUPE(SHAPE, 2.0), network, classes=["a", "b"])
    output = pipe(scan(2), num_samples=4, generator=seeded(0))
    assert not bool(present(output.disagreement).any())
    assert torch.equal(present(output.samples)[:, 0], present(output.samples)[:, 3])
    assert (output.images is not None) == (kind == "two_unets")
    assert output.std is None


def test_images_are_magnitudes_of_the_measured_intensity():
    network = segmenter("two_unets")
    images = complex_noise((2, *SHAPE), seeded(1))
    found = [present(network.images(*network.encode(s * images))).detach() for s in (1.0, 100.0)]
    one, other = found
    torch.testing.assert_close(other, 100 * one, rtol=1e-4, atol=1e-3)
    assert one.dtype == torch.complex64
    assert float(one.real.min()) >= 0
    torch.nn.init.zeros_(network.reconstruction.last.weight)
    torch.nn.init.zeros_(network.reconstruction.last.bias)
    unchanged = present(network.images(*network.encode(images)))
    torch.testing.assert_close(unchanged.real, images.abs())


def test_the_segmentation_sees_the_reconstruction_alone():
    network = segmenter("two_unets")
    images = complex_noise((1, *SHAPE), seeded(1))
    torch.nn.init.zeros_(network.reconstruction.last.weight)
    torch.nn.init.zeros_(network.reconstruction.last.bias)
    turned = images * torch.exp(torch.tensor(0.7j))
    one, other = (network.logits(network.encode(each)[0]) for each in (images, turned))
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_latents_of_segmentations_have_the_shape_of_those_of_images():
    network = segmenter("li_net")
    labels = torch.zeros(1, *SHAPE, dtype=torch.uint8)
    found = [network.encode_labels(labels + value) for value in range(3)]
    features, _ = network.encode(complex_noise((1, *SHAPE), seeded(1)))
    assert found[0].shape == features.shape == (1, 2, 4, 4)
    assert not torch.allclose(found[0], found[1])
    assert not torch.allclose(found[1], found[2])


def test_what_does_not_fit():
    with pytest.raises(InputError, match="multiples of 4"):
        segmenter("li_net").encode(complex_noise((1, 18, 16), seeded(0)))
    for kind in (LINet, TwoUNets):
        with pytest.raises(InputError, match="two classes"):
            kind(num_classes=1)
        with pytest.raises(InputError, match="width"):
            kind(width=0)
        with pytest.raises(InputError, match="latent segmenter"):
            TaskPipeline(LOUPE(SHAPE, 2.0), kind(), ImageDecoder(**TINY), ["mass"])


@pytest.mark.parametrize("kind", ["two_unets", "li_net"])
def test_a_pipeline_round_trips(kind, tmp_path):
    pipe = TaskPipeline(LOUPE(SHAPE, 2.0), segmenter(kind), classes=["a", "b"])
    pipe.save_pretrained(tmp_path / "task")
    again = load_task(tmp_path / "task")
    one, other = (each(scan(1), generator=seeded(0)).probabilities for each in (pipe, again))
    assert torch.equal(one, other)
