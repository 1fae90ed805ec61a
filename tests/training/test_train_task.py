"""The script that trains samplers with tasks, and the losses that it minimizes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import run as status
from gaussian import seeded
from narrow import present
from scripts import TRAINING, forget_accelerate, in_two_processes, start, weights

import ctxrecon
from ctxrecon.errors import InputError
from ctxrecon.fourier import fft2c, ifft2c
from ctxrecon.io import write_scan
from ctxrecon.masks.learned import FixedMasks
from ctxrecon.metadata import ScanMetadata
from ctxrecon.metrics import class_masks, generalized_energy_distance, iou
from ctxrecon.phantom import SEGMENTATIONS, AnatomyBank, Raters, phantom_scan
from ctxrecon.phantom.build import build_bank
from ctxrecon.pipelines import TaskPipeline, load_task
from ctxrecon.tasks import KSpaceStatistics, LatentSegmenter, kl_divergence, segmentation_loss
from ctxrecon.training import tasks as script
from ctxrecon.training.tasks import (
    ClassificationTraining,
    SegmentationTraining,
    TaskSamples,
    TaskScans,
    TasksConfig,
    TaskWeights,
    calibration,
    phantom_source,
    starting_point,
)
from ctxrecon.training.tasks.data import FindingTruth, RaterTruth, usual_raters

SCRIPT = TRAINING / "train_task.py"
T2 = ScanMetadata(contrast="T2", sequence="TurboSpinEcho", tr=5000, te=110, flip_angle=150)
NETWORK = "small:width=4:layers=1:latent_channels=2"
GENERATOR = "pattern_generator:ratios=[0.3,0.5]:lines=false"


@pytest.fixture(scope="module")
def masses(tmp_path_factory) -> Path:
    """A bank of three brains with masses and three knees, of 64²."""
    path = tmp_path_factory.mktemp("bank") / "bank.npz"
    build_bank(knees=3, brains=3, size=64, finding="Mass", progress=False).save(path)
    return path


@pytest.fixture
def run(masses, monkeypatch):
    """Train in this process; the options are those of a tiny run, then those given."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")

    def train(folder: Path, *options: str) -> Path:
        forget_accelerate()
        script.main([*arguments(masses, folder), *options])
        return folder

    return train


def arguments(bank: Path, folder: Path) -> list[str]:
    return [
        *("--bank", str(bank), "--output_dir", str(folder), "--resolution", "32"),
        *("--network", NETWORK, "--sampler", GENERATOR, "--train_batch_size", "2"),
        *("--max_train_steps", "3", "--lr_warmup_steps", "2"),
        *("--validation_scans", "0", "--report_to", "none"),
    ]


CLASSIFY = ("--task", "classification", "--network", "small:width=4")


@pytest.mark.parametrize(
    ("options", "moved"),
    [
        (("--target", "mass_or_edema"), "sampler.embeddings"),
        (("--sampler", "loupe:lines=false", "--acceleration", "3"), "sampler.weights"),
        (
            ("--sampler", "loupe:acceleration=3", "--num_coils", "3", "--center_fraction", "0.25"),
            "sampler.weights",
        ),
        (("--target", "cartilage_and_meniscus"), "posterior.encoder.conv_in.weight"),
        (("--reconstruction_weight", "0"), "network.latent_head.weight"),
        (("--network", f"{NETWORK}:decoder_sees_measurement=true"), "image_decoder.decoder"),
        (CLASSIFY, "sampler.embeddings"),
        (
            (*CLASSIFY, "--entropy_weight", "0.5", "--magnitude", "--scans", "9"),
            "sampler.embeddings",
        ),
    ],
)
def test_everything_moves(run, tmp_path, options, moved):
    folder = run(tmp_path / "run", *options)
    first = weights(run(tmp_path / "other", *options, "--max_train_steps", "1"), 1)
    last = weights(folder)
    (name, *_) = [name for name in last if name.startswith(moved)]
    assert not torch.equal(last[name], first[name])
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert np.isfinite(lines[-1]["loss"])
    pipe = load_task(folder / "pipeline")
    assert (pipe.image_decoder is not None) == (
        "--reconstruction_weight" not in options and CLASSIFY[0] not in options
    )
    # Only what is used later is exported, the posterior is not.
    parts = {path.name for path in (folder / "pipeline").iterdir() if path.is_dir()}
    assert parts <= {"sampler", "network", "image_decoder"}
    assert any(name.startswith("posterior.") for name in last) == (CLASSIFY[0] not in options)
    assert "ctxrecon.load" in (folder / "pipeline" / "README.md").read_text()


def test_fixed_masks_by_their_own_name(run, tmp_path):
    folder = run(tmp_path / "run", "--sampler", "variable_density2d:acceleration=4")
    sampler = load_task(folder / "pipeline").sampler
    assert sampler.mask == "variable_density2d"
    assert sampler.acceleration == 4
    run(tmp_path / "lines", "--sampler", "uniform1d")
    assert load_task(tmp_path / "lines" / "pipeline").sampler.acceleration == 8


def test_a_resumed_run_is_the_same_to_the_bit(run, tmp_path):
    options = ["--target", "mass_or_edema", "--lr_scheduler", "constant"]
    whole, stopped = run(tmp_path / "whole", *options), tmp_path / "stopped"
    run(stopped, *options, "--max_train_steps", "2")
    run(stopped, *options, "--resume_from_checkpoint", "latest")
    one, other = weights(whole), weights(stopped)
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


@pytest.mark.parametrize("options", [("--target", "mass"), (*CLASSIFY, "--entropy_weight", "0.1")])
def test_two_processes_train_as_one(run, masses, tmp_path, options):
    options = ["--scans", "4", "--adam_epsilon", "1e-3", *options]
    one = run(tmp_path / "one", *options, "--train_batch_size", "4")
    folder = tmp_path / "two"
    start([*in_two_processes(SCRIPT), *arguments(masses, folder), *options])
    for name, value in weights(one).items():
        torch.testing.assert_close(weights(folder)[name], value, rtol=1e-3, atol=1e-5)


def test_validation(run, tmp_path):
    folder = run(tmp_path / "run", "--validation_scans", "2")
    line = json.loads((folder / "validation.jsonl").read_text().splitlines()[-1])
    assert {"ged", "dice", "dice_majority", "diversity", "ece", "brier", "psnr"} <= set(line)
    assert all(np.isfinite(value) for value in line.values())
    assert (folder / "validation-3.png").stat().st_size > 5_000
    pipe = ctxrecon.load(folder / "pipeline")
    assert isinstance(pipe, TaskPipeline)
    folder = run(tmp_path / "other", *CLASSIFY, "--validation_scans", "12")
    line = json.loads((folder / "validation.jsonl").read_text().splitlines()[-1])
    assert 0 <= line["auroc_abnormal"] <= 1
    assert 0 <= line["brier"] <= 1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--sampler", "oracle"), "unknown --sampler 'oracle'"),
        (("--sampler", "greedy"), "another sampler"),
        (("--network", "large"), "unknown --network 'large'"),
        (("--network", "small:wide=4"), "wide"),
        (("--network", "small:num_classes=5"), "num_classes"),
        (("--target", "liver"), "liver"),
        (("--acceleration", "4"), "leave --acceleration out"),
        (("--resolution", "128"), "64 pixels"),
        (("--entropy_weight", "1"), "--reconstruction_weight 0"),
        ((*CLASSIFY, "--reconstruction_weight", "1"), "gives no image"),
        ((*CLASSIFY, "--entropy_weight", "1", "--snr", "0"), "give --snr"),
        (("--num_coils", "3", "--center_fraction", "0"), "--center_fraction"),
        (("--num_coils", "3", "--magnitude"), "--num_coils 1"),
    ],
)
def test_bad_options(run, tmp_path, options, sentence):
    with pytest.raises(InputError, match=sentence):
        run(tmp_path / "run", *options)
    assert not (tmp_path / "run").exists()


def test_a_bank_of_before(run, masses, tmp_path):
    from dataclasses import replace

    replace(AnatomyBank.load(masses), structures=None).save(tmp_path / "old.npz")
    with pytest.raises(InputError, match="make the bank again"):
        run(tmp_path / "run", "--bank", str(tmp_path / "old.npz"))
    # Findings are noted in any bank.
    run(tmp_path / "run", "--bank", str(tmp_path / "old.npz"), *CLASSIFY)


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
        phantom_source(config), truth, center, config.scans, 1, config.snr, config.magnitude
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
        """Also where the anatomy is mirrored and zoomed into."""
        config = configured(masses, resolution=48, rater_spread=0.0, field_of_view=0.7)
        pipe = starting_point(config)
        samples = samples_of(config, pipe)
        raters, seen = Raters(SEGMENTATIONS["mass"], 0, 0), 0
        for number in range(6):
            anatomy = samples.source.draw(number, 48)["anatomy"]
            expected = raters.segment(anatomy, (48, 48), slice_seed=0)[0]
            np.testing.assert_array_equal(samples[0, number]["truth"].numpy(), expected)
            seen += int(expected.sum())
        assert seen > 20

    def test_magnitude_images_are_symmetric(self, masses):
        config = configured(masses, magnitude=True, snr=0.0, scans=48)
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
        masks = model.masks(batch, sources)
        zero_filled = ifft2c(batch["kspace"] * masks)[:, 0]
        features, scale = model.network.encode(zero_filled)
        prior = model.network.prior(features)
        posterior = model.posterior(zero_filled, batch["truth"])
        noise = model.network.draw_noise((32, 32), sources)
        logits = model.network.decode(posterior.sample(noise), features)
        images, std = model.image_decoder(features, scale)
        error = ((images - batch["target"]) / scale).abs().square()
        surprise = error / (std / scale).square() + 2 * (std / scale).log()
        expected = (
            segmentation_loss(logits, batch["truth"])
            + 3 / 32**2 * kl_divergence(posterior, prior).mean(dim=(1, 2, 3))
            + 2 * surprise.mean(dim=(1, 2))
        )
        torch.testing.assert_close(model(batch), expected)

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
        masks = plain.masks(batch, sources)
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

    def test_two_opinions_are_both_drawn(self):
        """Half of the raters mark a disk A, half a larger one B ⊃ A: the latent tells which.

        No deterministic prediction has a distance below ½ d(A, B).
        """
        y = torch.arange(16) - 8
        radius = (y[:, None] ** 2 + y[None] ** 2).sqrt()
        core, whole = radius < 3, radius < 4.6
        image = torch.where(whole, 1.0, 0.3 - 0.1j).to(torch.complex64)
        kspace = fft2c(image)[None]
        torch.manual_seed(0)
        network = LatentSegmenter(width=4, depth=2, layers=1, latent_channels=2)
        pipe = TaskPipeline(FixedMasks((16, 16), 1.0), network, classes=["mass"])
        model = SegmentationTraining(pipe, TaskWeights())
        learned = [value for value in model.parameters() if value.requires_grad]
        optimizer = torch.optim.Adam(learned, 4e-3)
        source = seeded(1)
        for step in range(120):
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
            posterior = model.posterior(batch["target"], batch["truth"])
        # What the latent tells is one bit at least, and the bound counts it.
        told = kl_divergence(posterior, prior).flatten(1).sum(dim=1).mean()
        assert float(told) > 0.5 * math.log(2)
        found = pipe(kspace, num_samples=32, generator=seeded(0))
        raters = torch.stack([core, whole] * 50)[:, None]
        drawn = class_masks(present(found.samples)[0], 2)
        distance = float(generalized_energy_distance(drawn, raters))
        assert distance < 0.9 * 0.5 * (1 - float(iou(core, whole)))


def test_held_out_scans_show_the_target_and_are_nobody_of_a_bank(masses):
    config = configured(masses, target="cartilage_and_meniscus")
    pipe = starting_point(config)
    scans = TaskScans(2, config, calibration(pipe.sampler)).scans
    for scan in scans:
        assert scan.opinions.shape == (16, 32, 32)
        assert int(scan.opinions.max()) == 2
    assert not torch.equal(scans[0].opinions, scans[1].opinions)


class TestCommandLine:
    """``ctxrecon task`` with what was trained."""

    @staticmethod
    def scan(folder: Path) -> Path:
        """A fully sampled scan of two slices with three coils."""
        full = phantom_scan(
            "brain", protocols=[T2, T2], shape=(32, 32), num_coils=3, generator=seeded(4)
        )
        write_scan(folder / "scan.npz", full)
        return folder / "scan.npz"

    def test_segmentations(self, run, tmp_path, capsys):
        options = ("--sampler", "loupe:acceleration=2", "--center_fraction", "0.25")
        folder = run(tmp_path / "run", *options)
        scan, out = self.scan(tmp_path), tmp_path / "out"
        call = ["task", scan, "--model", folder / "pipeline", "--device", "cpu", "--samples", "3"]
        assert status(*call, "--out", out) == 0
        assert "acceleration 2.00" in capsys.readouterr().out
        segmentation = np.load(out / "segmentation.npy")
        assert segmentation.shape == (2, 32, 32)
        assert segmentation.dtype == np.uint8
        assert np.load(out / "segmentation_samples.npy").shape == (2, 3, 32, 32)
        probabilities = np.load(out / "segmentation_probabilities.npy")
        np.testing.assert_array_equal(probabilities.argmax(axis=1), segmentation)
        assert np.load(out / "segmentation_disagreement.npy").shape == (2, 32, 32)
        assert np.load(out / "segmentation_image.npy").dtype == np.complex64
        assert np.load(out / "segmentation_std.npy").shape == (2, 32, 32)
        masks = np.load(out / "segmentation_masks.npy")
        assert masks.mean() == 0.5
        rows = json.loads((out / "segmentation_summary.json").read_text())
        samples = np.load(out / "segmentation_samples.npy")
        assert [row["slice"] for row in rows] == [0, 1]
        pixels = (samples == 1).sum(axis=(2, 3))
        assert [row["mass"]["pixels"] for row in rows] == pytest.approx(pixels.mean(axis=1))
        # One slice is read as with the others, and nothing is replaced.
        assert status(*call, "--out", tmp_path / "one.npy", "--slices", "1") == 0
        np.testing.assert_array_equal(np.load(tmp_path / "one_samples.npy")[0], samples[1])
        assert status(*call, "--out", out) == 2
        assert "--overwrite" in capsys.readouterr().err
        # What was measured already is taken as it is.
        np.save(tmp_path / "mask.npy", masks[0, 0])
        call += ["--mask", tmp_path / "mask.npy", "--out", tmp_path / "again"]
        assert status(*call, "--acceleration", "2") == 2
        assert "undersampled already" in capsys.readouterr().err
        assert status(*call) == 0
        again = np.load(tmp_path / "again" / "segmentation_masks.npy")
        np.testing.assert_array_equal(again[0], masks[0])

    def test_findings(self, run, tmp_path, capsys):
        options = (*CLASSIFY, "--sampler", "loupe:acceleration=2", "--center_fraction", "0.25")
        folder = run(tmp_path / "run", *options)
        scan, out = self.scan(tmp_path), tmp_path / "out"
        call = ["task", scan, "--model", folder / "pipeline", "--device", "cpu", "--out", out]
        assert status(*call) == 0
        assert "ACL sprain 0." in capsys.readouterr().out
        rows = json.loads((out / "classification_summary.json").read_text())
        assert set(rows[0]) == {"slice", "meniscal tear", "ACL sprain", "abnormal"}
        assert all(0 < row["abnormal"] < 1 for row in rows)
        assert status(*call, "--samples", "3", "--overwrite") == 2
        assert "of segmentations" in capsys.readouterr().err
        call = ["reconstruct", scan, "--model", folder / "pipeline", "--device", "cpu"]
        assert status(*call, "--out", tmp_path / "image.npy") == 2
        assert "ctxrecon task" in capsys.readouterr().err

    def test_other_models(self, prior, tmp_path, capsys):
        call = ["task", self.scan(tmp_path), "--model", prior, "--device", "cpu"]
        assert status(*call, "--out", tmp_path / "out") == 2
        assert "ctxrecon reconstruct" in capsys.readouterr().err
