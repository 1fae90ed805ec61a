"""Training data and losses of tasks."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gaussian import seeded
from narrow import present

from ctxrecon.fourier import fft2c, ifft2c
from ctxrecon.masks.learned import FixedMasks
from ctxrecon.metrics import class_masks, generalized_energy_distance, iou
from ctxrecon.phantom import SEGMENTATIONS, Raters
from ctxrecon.pipelines import TaskPipeline
from ctxrecon.tasks import KSpaceStatistics, LatentSegmenter, kl_divergence, segmentation_loss
from ctxrecon.training.samplers import calibration, draw_training_masks
from ctxrecon.training.tasks import (
    ClassificationTraining,
    LINetTraining,
    SegmentationTraining,
    TaskSamples,
    TaskScans,
    TasksConfig,
    TaskWeights,
    TwoUNetsTraining,
    phantom_source,
    run,
    starting_point,
)
from ctxrecon.training.tasks.data import (
    FindingTruth,
    RaterTruth,
    fewest_pixels,
    usual_raters,
)

NETWORK = "small:width=4:layers=1:latent_channels=2"
GENERATOR = "pattern_generator:ratios=[0.3,0.5]:lines=false"


def configured(bank: Path, **options: Any) -> TasksConfig:
    given: dict[str, Any] = {"resolution": 32, "network": NETWORK, "sampler": GENERATOR}
    return TasksConfig(
        bank=bank, output_dir=Path("none"), max_train_steps=1, **{**given, **options}
    )


def samples_of(config: TasksConfig, pipe: TaskPipeline) -> TaskSamples:
    truth: Any = FindingTruth(pipe.config.classes)
    if config.task == "segmentation":
        truth = RaterTruth(usual_raters(config), config.raters, config.resolution)
    center = calibration(pipe.sampler)
    return TaskSamples(
        phantom_source(config), truth, center, config.scans, 1, config.snr, config.magnitude_images
    )


class TestSamples:
    def test_every_rater_is_heard(self, masses):
        config = configured(masses, target="mass_or_edema", scans=1)
        samples = samples_of(config, starting_point(config))
        opinions = samples[0, 0]["opinions"]
        assert opinions.shape == (6, 32, 32)
        heard = {
            next(j for j in range(6) if torch.equal(samples[0, number]["truth"], opinions[j]))
            for number in range(60)
        }
        assert heard == {
            j for j in range(6) if not any(torch.equal(opinions[i], opinions[j]) for i in range(j))
        }
        assert len(heard) > 3
        assert torch.equal(samples[0, 7]["truth"], samples[5, 7]["truth"])

    def test_raters_mark_what_is_imaged(self, masses):
        """Also where the anatomy is mirrored."""
        config = configured(masses, resolution=48, rater_spread=0.0)
        pipe = starting_point(config)
        samples = samples_of(config, pipe)
        raters, seen = Raters(SEGMENTATIONS["mass"], 0, 0), 0
        for number in range(6):
            anatomy = samples.source.draw(number, 48)["anatomy"]
            expected = raters.segment(anatomy, (48, 48), slice_seed=0)[0]
            np.testing.assert_array_equal(samples[0, number]["truth"].numpy(), expected)
            seen += int(expected.sum())
        assert seen > 20

    def test_part_of_the_anatomy(self, masses):
        """What is segmented is in it, not always in the middle, and covers more pixels."""
        config = configured(masses, resolution=32, field_of_view=0.5, rater_spread=0.0)
        whole = samples_of(configured(masses, rater_spread=0.0), starting_point(config))
        part = samples_of(config, starting_point(config))
        middles = []
        for number in range(6):
            anatomy = part.source.draw(number, 32)["anatomy"]
            assert anatomy.labels.shape == (32, 32)
            marked = part[0, number]["truth"] > 0
            assert int(marked.sum()) >= 2 * int((whole[0, number]["truth"] > 0).sum())
            middles.append(marked.nonzero().float().mean(dim=0))
        assert float(torch.stack(middles).std(dim=0).max()) > 1
        scan = TaskScans(1, config, calibration(starting_point(config).sampler)).scans[0]
        assert int((scan.opinions[0] > 0).sum()) >= 8

    def test_structures_cover_some_pixels_of_the_image(self):
        config = configured(Path("none"), resolution=32)
        assert fewest_pixels(64, config) == 4 * fewest_pixels(32, config)
        half = configured(Path("none"), resolution=32, field_of_view=0.5)
        assert fewest_pixels(64, half) == fewest_pixels(32, config)

    def test_one_contrast(self, masses):
        config = configured(masses, contrast="T1POST")
        source = phantom_source(config)
        assert {source.draw(n, 32)["metadata"].contrast for n in range(8)} == {"T1POST"}
        scans = TaskScans(2, config, calibration(starting_point(config).sampler)).scans
        plain = TaskScans(2, configured(masses), calibration(starting_point(config).sampler)).scans
        for one, other in zip(scans, plain, strict=True):
            assert torch.equal(one.opinions, other.opinions)  # of the same people
            assert not torch.equal(one.target, other.target)

    def test_magnitude_images_are_symmetric(self, masses):
        config = configured(masses, magnitude_images=True, snr=0.0, scans=48)
        samples = samples_of(config, starting_point(config))
        scan = samples[0, 0]
        torch.testing.assert_close(scan["target"].imag, torch.zeros(32, 32), atol=1e-5, rtol=0)
        inner = scan["kspace"][0, 1:, 1:]
        torch.testing.assert_close(inner, inner.flip(0, 1).conj(), atol=1e-4, rtol=0)
        # So that reflections tell nothing new, as those of complex images do.
        alone, paired = samples.statistics().entropies(0.01)
        assert float((alone - paired)[8:24, 8:16].mean()) > 1
        config = configured(masses, snr=0.0, scans=48)
        alone, paired = samples_of(config, starting_point(config)).statistics().entropies(0.01)
        assert float((alone - paired)[8:24, 8:16].mean()) < 0.3

    def test_findings_are_those_of_the_slice(self, masses):
        config = configured(masses, task="classification", network="small:width=4")
        samples = samples_of(config, starting_point(config))
        for number in range(6):
            labels = samples.source.draw(number, 32)["metadata"].pathologies
            found = samples[0, number]["truth"]
            assert bool(found[2]) == bool(labels)
            assert bool(found[0]) == ("Meniscus Tear" in labels)


class TestLosses:
    def batch(self, config: TasksConfig, pipe: TaskPipeline, size: int = 2) -> dict[str, Any]:
        samples = samples_of(config, pipe)
        return samples.collate([samples[0, number] for number in range(size)])

    def test_segmentation(self, masses):
        """``NLL(z|h) + λ₂ KL + λ₃ NLL(x|y)`` over the number of pixels."""
        config = configured(masses)
        pipe = starting_point(config)
        batch = self.batch(config, pipe)
        model = SegmentationTraining(pipe, TaskWeights(latent=3.0, reconstruction=2.0))
        sources = [torch.Generator().manual_seed(seed) for seed in batch["seed"].tolist()]
        masks = draw_training_masks(model.sampler, sources, torch.device("cpu"))
        zero_filled = ifft2c(batch["kspace"] * masks)[:, 0]
        features, scale = model.network.encode(zero_filled)
        prior = model.network.prior(features)
        posterior = present(model.posterior)(zero_filled, batch["truth"])
        noise = model.network.draw_noise((32, 32), sources)
        logits = model.network.decode(posterior.sample(noise), features)
        images, std = model.image_decoder(features, scale, zero_filled)
        error = ((images - batch["target"]) / scale).abs().square()
        surprise = error / (std / scale).square() + 2 * (std / scale).log()
        expected = (
            segmentation_loss(logits, batch["truth"])
            + 3 / 32**2 * kl_divergence(posterior, prior).sum(dim=(1, 2, 3))
            + 2 * surprise.mean(dim=(1, 2))
        )
        torch.testing.assert_close(model(batch), expected)

    def test_the_image_does_not_outweigh_the_latent_segmentation(self, masses):
        """Default weights of the image, see :class:`SegmentationTraining`."""
        config = configured(masses)
        pipe = starting_point(config)
        model = run._model(config, pipe, samples_of(config, pipe))
        assert model.weights.reconstruction == 0.1
        two = configured(masses, network="two_unets:width=2:depth=2")
        found = run._model(two, starting_point(two), samples_of(two, starting_point(two)))
        assert found.weights.reconstruction == 1

    def test_the_divergence_comes_to_its_weight(self, masses):
        config = configured(masses)
        pipe = starting_point(config)
        batch = self.batch(config, pipe)
        losses = {}
        for step, warmup in ((0, 0), (0, 4), (1, 4), (3, 4), (9, 4)):
            torch.manual_seed(0)
            model = SegmentationTraining(pipe, TaskWeights(latent_warmup=warmup))
            losses[step, warmup] = model({**batch, "step": torch.full((2,), step)})
        whole = losses[0, 0]
        torch.testing.assert_close(losses[3, 4], whole)
        torch.testing.assert_close(losses[9, 4], whole)
        first, second = losses[0, 4], losses[1, 4]
        torch.testing.assert_close(whole - first, 3 * (second - first), rtol=1e-3, atol=1e-5)
        assert bool((second > first).all())

    def test_without_a_latent(self, masses):
        config = configured(masses, network=f"{NETWORK}:deterministic=true")
        pipe = starting_point(config)
        batch = self.batch(config, pipe)
        model = SegmentationTraining(pipe, TaskWeights(reconstruction=0.0))
        assert not any(name.startswith("posterior") for name, _ in model.named_parameters())
        sources = [torch.Generator().manual_seed(seed) for seed in batch["seed"].tolist()]
        masks = draw_training_masks(model.sampler, sources, torch.device("cpu"))
        zero_filled = ifft2c(batch["kspace"] * masks)[:, 0]
        features, _ = model.network.encode(zero_filled)
        logits = model.network.decode(model.network.prior(features).mean, features)
        torch.testing.assert_close(model(batch), segmentation_loss(logits, batch["truth"]))
        model(batch).sum().backward()
        for name, value in model.named_parameters():
            assert bool(torch.isfinite(present(value.grad)).all()), name

    def test_the_likelihood_of_an_image_is_largest_where_std_is_the_error(self):
        from ctxrecon.training.reconstructor.objective import paired_loss

        error = torch.rand(1, 4, 4, generator=seeded(0)) + 0.1
        std = error.clone().requires_grad_()
        target = torch.zeros(1, 4, 4, dtype=torch.complex64)
        inside = torch.ones(1, 4, 4, dtype=torch.bool)
        loss = paired_loss("gaussian", target + error, std, target, inside)
        loss.sum().backward()
        assert float(present(std.grad).abs().max()) < 1e-6

    def test_masks_follow_from_the_seeds_of_the_samples(self, masses):
        config = configured(masses)
        pipe = starting_point(config)
        batch = self.batch(config, pipe)
        model = SegmentationTraining(pipe, TaskWeights())
        turned = {name: value.flip(0) for name, value in batch.items()}
        torch.testing.assert_close(model(batch).flip(0), model(turned))

    def test_each_sample_has_a_ratio_of_its_own(self, masses, monkeypatch):
        config = configured(masses, sampler="pattern_generator:ratios=[0.1,0.9]:lines=false")
        pipe = starting_point(config)
        batch, seen = self.batch(config, pipe, 4), []
        model = SegmentationTraining(pipe, TaskWeights())
        relaxed = type(pipe.sampler).relaxed

        def spy(*args: Any) -> torch.Tensor:
            masks = relaxed(*args)
            seen.append((args[1], masks))
            return masks

        monkeypatch.setattr(type(pipe.sampler), "relaxed", spy)
        model(batch)
        ((accelerations, masks),) = seen
        ratios = [
            1 / pipe.sampler.draw_acceleration(torch.Generator().manual_seed(seed))
            for seed in batch["seed"].tolist()
        ]
        assert [1 / one for one in accelerations] == pytest.approx(ratios)
        assert max(ratios) - min(ratios) > 0.2
        found = masks.detach().mean(dim=(1, 2, 3))
        torch.testing.assert_close(found, torch.tensor(ratios), atol=0.06, rtol=0)

    def test_the_entropy_of_a_sample_is_added(self, masses):
        config = configured(masses, task="classification", network="small:width=4", scans=9)
        pipe = starting_point(config)
        batch = self.batch(config, pipe)
        statistics = samples_of(config, pipe).statistics()
        assert isinstance(statistics, KSpaceStatistics)
        entropies = statistics.entropies(1 / config.snr)
        plain = ClassificationTraining(pipe, TaskWeights())
        suppressed = ClassificationTraining(pipe, TaskWeights(entropy=0.7), entropies)
        sources = [torch.Generator().manual_seed(seed) for seed in batch["seed"].tolist()]
        masks = draw_training_masks(plain.sampler, sources, torch.device("cpu"))
        expected = 0.7 * entropies.of(masks) / masks.sum(dim=(1, 2, 3))
        found = suppressed(batch) - plain(batch)
        torch.testing.assert_close(found, expected.float(), rtol=1e-4, atol=1e-5)
        assert math.log(2) / 2 < float(plain(batch).detach().mean()) < 2

    def test_gradients_reach_the_sampler(self, masses):
        for options in ({}, {"task": "classification", "network": "small:width=4"}):
            config = configured(masses, **options)
            pipe = starting_point(config)
            kind: Any = ClassificationTraining if options else SegmentationTraining
            model = kind(pipe, TaskWeights())
            model(self.batch(config, pipe)).sum().backward()
            for name, value in model.named_parameters():
                assert value.grad is not None, name
                assert bool(torch.isfinite(value.grad).all()), name
            assert float(model.sampler.embeddings.grad.abs().sum()) > 0

    def test_two_unets(self, masses):
        """``CE + λ₃ MSE`` of magnitudes, or either alone."""
        config = configured(masses, network="two_unets:width=4:depth=2")
        pipe = starting_point(config)
        network: Any = pipe.network
        for unet in (network.reconstruction, network.segmentation):
            torch.nn.init.normal_(unet.last.weight, std=0.3, generator=seeded(0))
        batch = self.batch(config, pipe)
        model = TwoUNetsTraining(pipe, TaskWeights(reconstruction=2.0))
        sources = [torch.Generator().manual_seed(seed) for seed in batch["seed"].tolist()]
        masks = draw_training_masks(model.sampler, sources, torch.device("cpu"))
        features, scale = network.encode(ifft2c(batch["kspace"] * masks)[:, 0])
        distance = (features[:, 0] - (batch["target"] / scale).abs()).square().mean(dim=(1, 2))
        entropy = segmentation_loss(network.logits(features), batch["truth"])
        torch.testing.assert_close(model(batch), entropy + 2 * distance)
        for aim, expected in (("task", entropy), ("reconstruction", distance)):
            found = TwoUNetsTraining(pipe, TaskWeights(), aim=aim)(batch)
            torch.testing.assert_close(found, expected)

    def test_li_net(self, masses):
        """InfoMRI, equations (38) and (39)."""
        config = configured(masses, network="li_net:width=4:layers=1:latent_channels=2")
        pipe = starting_point(config)
        network: Any = pipe.network
        batch = self.batch(config, pipe)
        latent = network.encode_labels(batch["truth"])
        expected = segmentation_loss(network.logits(latent), batch["truth"])
        found = LINetTraining(pipe, TaskWeights(), aim="labels")(batch)
        torch.testing.assert_close(found, expected)
        model = LINetTraining(pipe, TaskWeights(), aim="task")
        sources = [torch.Generator().manual_seed(seed) for seed in batch["seed"].tolist()]
        masks = draw_training_masks(model.sampler, sources, torch.device("cpu"))
        predicted, _ = network.encode(ifft2c(batch["kspace"] * masks)[:, 0])
        expected = (predicted - latent).square().mean(dim=(1, 2, 3))
        torch.testing.assert_close(model(batch), expected)

    def test_two_opinions_are_both_drawn(self):
        """Half of the raters mark a disk A, half a larger one B ⊃ A: the latent tells which.

        No deterministic prediction has a distance below ½ d(A, B), samples less than half of that.
        """
        y = torch.arange(16) - 8
        radius = (y[:, None] ** 2 + y[None] ** 2).sqrt()
        core, whole = radius < 3, radius < 4.6
        image = torch.where(whole, 1.0, 0.3 - 0.1j).to(torch.complex64)
        kspace = fft2c(image)[None]
        torch.manual_seed(0)
        network = LatentSegmenter(width=4, depth=2, layers=1, latent_channels=2)
        pipe = TaskPipeline(FixedMasks((16, 16), 1.0), network, classes=["mass"])
        model = SegmentationTraining(pipe, TaskWeights(latent_warmup=80, reconstruction=0.0))
        learned = [value for value in model.parameters() if value.requires_grad]
        optimizer = torch.optim.Adam(learned, 4e-3)
        source = seeded(1)
        for step in range(150):
            wide = torch.rand(8, generator=source) < 0.5
            batch = {
                "kspace": kspace.repeat(8, 1, 1, 1),
                "coil_maps": torch.ones(8, 1, 16, 16, dtype=torch.complex64),
                "target": image.repeat(8, 1, 1),
                "truth": torch.where(wide[:, None, None], whole, core).to(torch.uint8),
                "seed": torch.arange(8) + 8 * step,
                "step": torch.full((8,), step),
            }
            optimizer.zero_grad()
            model(batch).mean().backward()
            optimizer.step()
        with torch.no_grad():
            prior = network.prior(network.encode(batch["target"])[0])
            posterior = present(model.posterior)(batch["target"], batch["truth"])
        # What the latent tells is one bit at least, and the bound counts it.
        told = kl_divergence(posterior, prior).flatten(1).sum(dim=1).mean()
        assert float(told) > 0.5 * math.log(2)
        found = pipe(kspace, num_samples=32, generator=seeded(0))
        raters = torch.stack([core, whole] * 50)[:, None]
        drawn = class_masks(present(found.samples)[0], 2)
        distance = float(generalized_energy_distance(drawn, raters))
        assert distance < 0.5 * 0.5 * (1 - float(iou(core, whole)))


def test_held_out_scans_show_the_target_and_are_nobody_of_a_bank(masses):
    config = configured(masses, target="cartilage_and_meniscus")
    pipe = starting_point(config)
    scans = TaskScans(2, config, calibration(pipe.sampler)).scans
    for scan in scans:
        assert scan.opinions.shape == (16, 32, 32)
        assert int(scan.opinions.max()) == 2
    assert not torch.equal(scans[0].opinions, scans[1].opinions)
