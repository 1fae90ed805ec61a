from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from narrow import present

from ctxrecon.errors import InputError
from ctxrecon.metrics import Lpips, hfen, image_metrics, nmse, psnr, sharpness, snr, ssim


@pytest.fixture
def pair(generator):
    """A smooth reference of maximum 3 and a noisy prediction, two slices, complex."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, 40), torch.linspace(-1, 1, 33), indexing="ij")
    bump = torch.exp(-3 * (x**2 + y**2))
    reference = torch.stack([3 * bump, bump]) * torch.exp(1j * x)
    noise = torch.randn(reference.shape, dtype=torch.complex64, generator=generator)
    return reference + 0.05 * noise, reference


def test_psnr_of_a_known_error():
    reference = torch.zeros(2, 8, 8)
    reference[0, 0, 0], reference[1, 0, 0] = 1.0, 2.0
    prediction = reference + 0.1
    torch.testing.assert_close(psnr(prediction, reference), torch.tensor([20.0, 26.0206]))
    # As one volume the peak is 2 for both slices.
    volume = psnr(prediction, reference, aggregation="volume")
    assert volume.shape == ()
    torch.testing.assert_close(volume, torch.tensor(26.0206))


def test_nmse_and_snr_of_a_known_error():
    reference = torch.stack([torch.ones(8, 8), 3 * torch.ones(8, 8)])
    prediction = reference * 1.1
    torch.testing.assert_close(nmse(prediction, reference), torch.tensor([0.01, 0.01]))
    torch.testing.assert_close(snr(prediction, reference), torch.tensor([20.0, 20.0]))
    half_wrong = torch.stack([torch.zeros(8, 8), reference[1]])
    torch.testing.assert_close(nmse(half_wrong, reference), torch.tensor([1.0, 0.0]))
    volume = nmse(half_wrong, reference, aggregation="volume")
    torch.testing.assert_close(volume, torch.tensor(0.1))
    torch.testing.assert_close(snr(half_wrong, reference, aggregation="volume"), torch.tensor(10.0))


def test_agreement_is_perfect(pair):
    _, reference = pair
    values = image_metrics(reference, reference)
    assert set(values) == {"psnr", "ssim", "nmse", "snr", "hfen", "sharpness"}
    assert torch.isinf(values["psnr"]).all()
    assert torch.isinf(values["snr"]).all()
    torch.testing.assert_close(values["ssim"], torch.ones(2))
    assert not values["nmse"].any()
    assert not values["hfen"].any()
    torch.testing.assert_close(values["sharpness"], torch.ones(2))


def test_the_phase_does_not_count(pair):
    prediction, reference = pair
    turned = prediction * np.exp(1j * 0.7)
    torch.testing.assert_close(psnr(turned, reference), psnr(prediction, reference))


def test_a_prediction_in_other_units_is_wrong(pair):
    """Scaling prediction and reference separately, as published code does, would hide this."""
    prediction, reference = pair
    assert (psnr(2 * prediction, reference) < psnr(prediction, reference) - 10).all()
    assert (ssim(2 * prediction, reference) < ssim(prediction, reference) - 0.1).all()


def test_common_units_do_not_matter(pair):
    prediction, reference = pair
    for name, value in image_metrics(prediction, reference).items():
        scaled = image_metrics(1e-6 * prediction, 1e-6 * reference)[name]
        torch.testing.assert_close(scaled, value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("aggregation", ["slice", "volume"])
def test_ssim_is_that_of_scikit_image(pair, aggregation):
    structural_similarity = pytest.importorskip("skimage.metrics").structural_similarity
    prediction, reference = (image.abs().double().numpy() for image in pair)
    expected = [
        structural_similarity(
            p, r, data_range=r.max() if aggregation == "slice" else reference.max(), win_size=7
        )
        for p, r in zip(prediction, reference, strict=True)
    ]
    value = ssim(*pair, aggregation=aggregation).numpy()
    wanted = expected if aggregation == "slice" else np.mean(expected)
    np.testing.assert_allclose(value, wanted, atol=1e-5)


def test_psnr_is_that_of_scikit_image(pair):
    peak_ratio = pytest.importorskip("skimage.metrics").peak_signal_noise_ratio
    prediction, reference = (image.abs().double().numpy() for image in pair)
    expected = [
        peak_ratio(r, p, data_range=r.max()) for p, r in zip(prediction, reference, strict=True)
    ]
    np.testing.assert_allclose(psnr(*pair).numpy(), expected, rtol=1e-5)


def test_aggregation_changes_the_number(pair):
    prediction, reference = pair
    by_slice = psnr(prediction, reference)
    volume = psnr(prediction, reference, aggregation="volume")
    assert by_slice.shape == (2,)
    assert float(volume - by_slice.mean()) > 3


def test_a_batch_equals_its_slices(pair):
    prediction, reference = pair
    batch = image_metrics(prediction, reference)
    for i in range(2):
        single = image_metrics(prediction[i : i + 1].numpy(), reference[i : i + 1].numpy())
        for name in batch:
            torch.testing.assert_close(single[name][0], batch[name][i])


@pytest.mark.parametrize("metric", [psnr, ssim, nmse, snr, image_metrics])
@pytest.mark.parametrize(
    ("prediction", "reference", "options", "sentence"),
    [
        (torch.ones(1, 9, 9), torch.ones(1, 9, 8), {}, r"one shape, got \(1, 9, 9\) and"),
        (torch.ones(9, 9), torch.ones(9, 9), {}, r"images .*shape"),
        (torch.ones(0, 9, 9), torch.ones(0, 9, 9), {}, r"\(batch, ny, nx\), got shape \(0, 9, 9\)"),
        (torch.full((1, 9, 9), math.nan), torch.ones(1, 9, 9), {}, "the prediction contains NaN"),
        (
            torch.ones(1, 9, 9),
            torch.full((1, 9, 9), math.inf),
            {},
            "reference .*NaN",
        ),
        (torch.ones(1, 9, 9), torch.zeros(1, 9, 9), {}, "slice 0 is zero"),
        (
            torch.ones(1, 9, 9),
            torch.ones(1, 9, 9),
            {"aggregation": "mean"},
            "aggregation .*'mean'",
        ),
    ],
)
def test_images_that_cannot_be_compared_are_refused(
    metric, prediction, reference, options, sentence
):
    with pytest.raises(InputError, match=sentence):
        metric(prediction, reference, **options)


def test_an_empty_slice_is_part_of_a_volume():
    reference = torch.ones(2, 9, 9)
    reference[0] = 0
    with pytest.raises(InputError, match="reference of slice 0"):
        psnr(reference + 0.1, reference)
    torch.testing.assert_close(
        psnr(reference + 0.1, reference, aggregation="volume"), torch.tensor(20.0)
    )


def test_ssim_needs_its_window():
    with pytest.raises(InputError, match=r"7x7 .*\(6, 9\)"):
        ssim(torch.ones(1, 6, 9), torch.ones(1, 6, 9))


@pytest.fixture(scope="module")
def alexnet_weights(tmp_path_factory):
    """A file laid out as torchvision publishes it, with random numbers in it."""
    models = pytest.importorskip("torchvision.models")
    pytest.importorskip("lpips")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        features = models.alexnet(weights=None).features
    path = tmp_path_factory.mktemp("lpips") / "alexnet.pth"
    torch.save({f"features.{key}": value for key, value in features.state_dict().items()}, path)
    return path


def test_lpips_with_the_shipped_backbone_gives_the_documented_value():
    """The example of torchmetrics: ``net_type="squeeze"`` on two batches of uniform noise."""
    pytest.importorskip("lpips")
    torch.manual_seed(42)
    first, second = (torch.rand(10, 3, 100, 100) * 2 - 1 for _ in range(2))
    lpips = Lpips()
    lpips(torch.ones(1, 32, 32), torch.ones(1, 32, 32))  # builds the network
    with torch.no_grad():
        distances = present(lpips._network)(first, second)
    assert distances.mean().item() == pytest.approx(0.1005, abs=1e-4)


@pytest.mark.parametrize("size", [16, 17])
def test_lpips_of_the_smallest_images(size):
    pytest.importorskip("lpips")
    image = torch.rand(1, size, size, generator=torch.Generator().manual_seed(0))
    if size < 17:
        with pytest.raises(InputError, match="at least 17x17"):
            Lpips()(image, image)
    else:
        assert float(Lpips()(image, image)) == 0


def test_lpips_is_built_once_and_uses_the_weights(pair, alexnet_weights):
    prediction, reference = pair
    lpips = Lpips(alexnet_weights, backbone="alex")
    distance = lpips(prediction, reference)
    network = lpips._network
    assert distance.shape == (2,)
    assert (distance > 0).all()
    assert torch.equal(lpips(reference, reference), torch.zeros(2))
    assert lpips._network is network
    torch.testing.assert_close(
        Lpips(alexnet_weights, backbone="alex")(prediction, reference), distance
    )
    torch.testing.assert_close(lpips(5 * prediction, 5 * reference), distance)
    one_by_one = torch.cat([lpips(prediction[i : i + 1], reference[i : i + 1]) for i in (0, 1)])
    torch.testing.assert_close(one_by_one, distance)
    loaded = torch.load(alexnet_weights, weights_only=True)
    net: Any = present(network).net
    assert torch.equal(net.state_dict()["slice3.6.weight"], loaded["features.6.weight"])


def test_lpips_finds_the_hub_cache(pair, alexnet_weights, tmp_path, monkeypatch):
    cache = tmp_path / "checkpoints"
    cache.mkdir()
    (cache / "alexnet-owt-7be5be79.pth").write_bytes(alexnet_weights.read_bytes())
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    torch.testing.assert_close(
        Lpips(backbone="alex")(*pair), Lpips(alexnet_weights, backbone="alex")(*pair)
    )


def test_lpips_does_not_download(pair, tmp_path, monkeypatch):
    pytest.importorskip("lpips")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    for backbone in ("alex", "vgg"):
        with pytest.raises(InputError, match=r"\.pth: download"):
            Lpips(backbone=backbone)(*pair)


def test_lpips_refuses_what_it_cannot_use(pair, alexnet_weights, tmp_path):
    with pytest.raises(InputError, match=r"backbone .*'lenet'"):
        Lpips(backbone="lenet")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"none\.pth"):
        Lpips(tmp_path / "none.pth")
    with pytest.raises(InputError, match=r"'vgg': features\.0"):
        Lpips(alexnet_weights, backbone="vgg")(*pair)
    garbage = tmp_path / "garbage.pth"
    garbage.write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match="state dict"):
        Lpips(garbage, backbone="alex")(*pair)
    with pytest.raises(InputError, match=r"31x31 .*\(30, 40\)"):
        Lpips(alexnet_weights, backbone="alex")(torch.ones(1, 30, 40), torch.ones(1, 30, 40))
    with pytest.raises(InputError, match=r"reference .*zero"):
        Lpips(alexnet_weights, backbone="alex")(torch.ones(1, 40, 40), torch.zeros(1, 40, 40))


def test_hfen_is_scipys_laplacian_of_gaussian():
    """The continuous filter, which the 15×15 kernel samples: to a few per cent."""
    from scipy.ndimage import gaussian_laplace

    generator = torch.Generator().manual_seed(0)
    reference = torch.zeros(2, 64, 60)
    reference[:, 16:48, 15:45] = 1 + torch.rand(2, 32, 30, generator=generator)
    prediction = reference.clone()
    prediction[:, 20:40, 20:40] += 0.3 * torch.rand(2, 20, 20, generator=generator)
    edges = [
        [gaussian_laplace(image.double().numpy(), 1.5) for image in images]
        for images in (prediction - reference, reference)
    ]
    expected = [np.linalg.norm(e) / np.linalg.norm(r) for e, r in zip(*edges, strict=True)]
    np.testing.assert_allclose(hfen(prediction, reference).numpy(), expected, rtol=0.03)
    flat = reference + 0.0
    flat[:, 16:48, 15:45] += 0.001
    assert float(hfen(flat, reference).max()) < 0.01


def test_sharpness_of_blurred_and_of_noisy_images():
    generator = torch.Generator().manual_seed(0)
    reference = torch.zeros(1, 40, 40)
    reference[:, 10:30, 10:30] = 1
    torch.testing.assert_close(sharpness(2 * reference, reference), torch.tensor([2.0]))
    ramp = torch.linspace(0, 1, 5).repeat(1, 8, 1)
    step = (ramp > 0.4).float()
    torch.testing.assert_close(sharpness(ramp, step), torch.tensor([1.0]))  # total variation
    blurred = torch.nn.functional.avg_pool2d(reference, 9, stride=1, padding=4)
    texture = torch.rand(1, 40, 40, generator=generator)
    assert float(sharpness(blurred * texture, reference * texture)) < 1
    noisy = reference + 0.1 * texture
    assert float(sharpness(noisy, reference)) > 1
    both = torch.cat([reference, reference])
    pair = torch.cat([reference, 3 * reference])
    torch.testing.assert_close(sharpness(pair, both, aggregation="volume"), torch.tensor(2.0))
