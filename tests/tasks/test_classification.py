"""The classifier of findings, and the labels that it learns from."""

from __future__ import annotations

import pytest
import torch
from gaussian import complex_noise, seeded

from ctxrecon.errors import InputError
from ctxrecon.metadata import read_fastmri_plus
from ctxrecon.phantom.knee_findings import KNEE_FINDINGS
from ctxrecon.tasks import FINDINGS, FindingClassifier, finding_labels


def test_the_size_of_a_resnet_18():
    with torch.device("meta"):
        network = FindingClassifier()
    assert sum(value.numel() for value in network.parameters()) == pytest.approx(11.18e6, rel=1e-3)


def test_the_layers_are_those_of_torchvision():
    """By the shapes of its parameters."""
    models = pytest.importorskip("torchvision.models")
    with torch.device("meta"):
        ours, theirs = FindingClassifier(), models.resnet18(num_classes=3)
    shapes = [sorted(tuple(v.shape) for v in one.parameters()) for one in (ours, theirs)]
    differing = [pair for pair in zip(*shapes, strict=True) if pair[0] != pair[1]]
    assert differing == [((64, 2, 7, 7), (64, 3, 7, 7))]


def test_a_slice_gives_the_same_in_any_batch_and_intensity():
    torch.manual_seed(0)
    network = FindingClassifier(width=4)
    images = complex_noise((3, 32, 40), seeded(0))
    logits = network(images)
    assert logits.shape == (3, 3)
    torch.testing.assert_close(network(images[1:2]), logits[1:2])
    torch.testing.assert_close(network(1e-3 * images), logits, rtol=1e-3, atol=1e-3)


def test_small_images_are_learned():
    """With too few values to normalize, as two channels of one pixel, nothing would be."""
    torch.manual_seed(0)
    network = FindingClassifier(["patch"], width=4)
    images = complex_noise((64, 28, 28), seeded(0))
    images[::2, 12:16, 10:14] += 4
    truth = torch.arange(64) % 2 == 0
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(25):
        optimizer.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            network(images)[:, 0], truth.float()
        )
        loss.backward()
        optimizer.step()
    found = network(images)[:, 0] > 0
    assert float((found == truth).float().mean()) > 0.9


def test_labels():
    assert finding_labels([]).tolist() == [False, False, False]
    assert finding_labels(["Meniscus Tear"]).tolist() == [True, False, True]
    sprains = ["Ligament - ACL Low Grade sprain", "Ligament - ACL High Grade Sprain"]
    for sprain in sprains:
        assert finding_labels([sprain, "Joint Effusion"]).tolist() == [False, True, True]
    assert finding_labels(["artifact"]).tolist() == [False, False, False]
    assert finding_labels(["Meniscus Tear"], ["abnormal", "meniscal tear"]).tolist() == [True, True]
    with pytest.raises(InputError, match="gout"):
        finding_labels([], ["gout"])


def test_every_finding_is_one_that_the_phantom_draws():
    for is_one in FINDINGS.values():
        assert any(map(is_one, KNEE_FINDINGS))


def test_the_labels_of_real_knees(shared_data):
    table = read_fastmri_plus(shared_data / "fastmri_plus" / "knee.csv")
    found = torch.stack([finding_labels(labels) for labels in table.values()])
    # Slices, not boxes: 5658 boxes of tears lie in fewer.
    tears, sprains, abnormal = found.sum(dim=0).tolist()
    assert 3000 < tears < 5658
    assert 1000 < sprains <= 765 + 678
    assert len(table) - 20 < abnormal <= len(table)


def test_refusals():
    with pytest.raises(InputError, match="list of names"):
        FindingClassifier(findings=[])
    with pytest.raises(InputError, match="width"):
        FindingClassifier(width=0)
