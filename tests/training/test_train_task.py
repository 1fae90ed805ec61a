"""The script that trains samplers with tasks, and the losses that it minimizes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import check_calibration_is_used
from command_line import run as status
from gaussian import seeded
from scripts import TRAINING, forget_accelerate, in_two_processes, start, weights

import ctxrecon
from ctxrecon.errors import InputError
from ctxrecon.io import read_scan, write_scan
from ctxrecon.metadata import ScanMetadata
from ctxrecon.phantom import AnatomyBank, phantom_scan
from ctxrecon.pipelines import TaskPipeline, load_task
from ctxrecon.training import tasks as script

SCRIPT = TRAINING / "train_task.py"
T2 = ScanMetadata(contrast="T2", sequence="TurboSpinEcho", tr=5000, te=110, flip_angle=150)
NETWORK = "small:width=4:layers=1:latent_channels=2"
GENERATOR = "pattern_generator:ratios=[0.3,0.5]:lines=false"


@pytest.fixture
def run(masses, monkeypatch):
    """Train in this process; the options are those of a tiny run, then those given."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")

    def train(folder: Path, *options: str, network: bool = True) -> Path:
        forget_accelerate()
        given = arguments(masses, folder)
        script.main([*(given if network else without_network(given)), *options])
        return folder

    return train


def arguments(bank: Path, folder: Path) -> list[str]:
    return [
        *("--bank", str(bank), "--output_dir", str(folder), "--resolution", "32"),
        *("--network", NETWORK, "--sampler", GENERATOR, "--train_batch_size", "2"),
        *("--max_train_steps", "3", "--lr_warmup_steps", "2"),
        *("--validation_scans", "0", "--report_to", "none"),
    ]


def without_network(words: list[str]) -> list[str]:
    """Train in this process from an earlier run."""
    left = list(words)
    for name in ("--network", "--sampler"):
        del left[left.index(name) : left.index(name) + 2]
    return left


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
            (*CLASSIFY, "--entropy_weight", "0.5", "--magnitude_images", "--scans", "9"),
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


UNETS = ("--network", "two_unets:width=4:depth=2", "--sampler", "loupe:lines=false:acceleration=3")
LI_NET = ("--network", "li_net:width=4:layers=1:latent_channels=2", "--sampler", "loupe")


def after(folder: Path, *options: str) -> tuple[str, ...]:
    """Options of a stage that goes on from a run."""
    return ("--pretrained_model_name_or_path", str(folder / "pipeline"), "--aim", "task", *options)


def exported(folder: Path) -> dict[str, torch.Tensor]:
    """The weights of a pipeline."""
    pipe = load_task(folder / "pipeline")
    parts = {"sampler": pipe.sampler, "network": pipe.network}
    return {f"{name}.{key}": value for name, part in parts.items()
            for key, value in part.state_dict().items()}  # fmt: skip


class TestStages:
    """Networks that are trained one part after the other."""

    @staticmethod
    def moved(run, tmp_path, first, second) -> tuple[set[str], set[str]]:
        """Parts that each of two stages changes."""
        start = exported(run(tmp_path / "start", *first, "--learning_rate", "0",
                             "--sampler_learning_rate", "0"))  # fmt: skip
        one = exported(run(tmp_path / "one", *first))
        two = exported(run(tmp_path / "two", *after(tmp_path / "one", *second),
                           network=False))  # fmt: skip

        def changed(before, now):
            names = {name for name in now if not torch.equal(before[name], now[name])}
            return {".".join(name.split(".")[:2]) for name in names}

        return changed(start, one), changed(one, two)

    def test_tackle(self, run, tmp_path):
        first, second = self.moved(run, tmp_path, (*UNETS, "--aim", "reconstruction"), ())
        assert first == {"sampler.weights", "network.reconstruction"}
        assert second == {"sampler.weights", "network.reconstruction", "network.segmentation"}

    def test_loupe_unet_rs(self, run, tmp_path):
        freeze = ("--freeze", "sampler", "reconstruction")
        first, second = self.moved(run, tmp_path, (*UNETS, "--aim", "reconstruction"), freeze)
        assert first == {"sampler.weights", "network.reconstruction"}
        assert second == {"network.segmentation"}

    def test_li_net(self, run, tmp_path):
        first, second = self.moved(run, tmp_path, (*LI_NET, "--aim", "labels"), ())
        assert first == {"network.label_encoder", "network.decoder"}
        assert second == {"sampler.weights", "network.encoder"}

    def test_a_frozen_sampler_of_a_classification(self, run, tmp_path):
        """The network learns alone."""
        frozen = ("--task", "classification", "--aim", "both", "--freeze", "sampler")
        first, second = self.moved(run, tmp_path, CLASSIFY, frozen)
        assert any(name.startswith("sampler.") for name in first)
        assert second
        assert all(name.startswith("network.") for name in second)

    def test_semunet(self, run, tmp_path):
        parts = exported(run(tmp_path / "one", *UNETS))
        still = exported(run(tmp_path / "still", *UNETS, "--learning_rate", "0",
                             "--sampler_learning_rate", "0"))  # fmt: skip
        names = ("sampler.weights", "network.reconstruction.last.bias",
                 "network.segmentation.last.bias")  # fmt: skip
        assert not any(torch.equal(parts[name], still[name]) for name in names)

    def test_a_sampler_goes_to_another_network(self, run, tmp_path):
        """LOUPE-LI-Net takes the masks of a reconstruction."""
        images = run(tmp_path / "images", *UNETS, "--aim", "reconstruction")
        labels = run(
            tmp_path / "labels", *after(images), *LI_NET[:2], "--aim", "labels", network=False
        )
        last = run(tmp_path / "last", *after(labels, "--freeze", "sampler"), network=False)
        for folder in (labels, last):
            torch.testing.assert_close(
                exported(folder)["sampler.weights"], exported(images)["sampler.weights"]
            )
        assert type(load_task(last / "pipeline").network).__name__ == "LINet"

    @pytest.mark.parametrize(
        ("first", "second"),
        [
            ((*UNETS, "--aim", "reconstruction"), ("--freeze", "sampler", "reconstruction")),
            ((*LI_NET, "--aim", "labels"), ()),
        ],
    )
    def test_a_resumed_stage_is_the_same_to_the_bit(self, run, tmp_path, first, second):
        options = after(run(tmp_path / "first", *first), *second, "--lr_scheduler", "constant")
        whole = run(tmp_path / "whole", *options, network=False)
        run(tmp_path / "stopped", *options, "--max_train_steps", "2", network=False)
        run(tmp_path / "stopped", *options, "--resume_from_checkpoint", "latest", network=False)
        one, other = exported(whole), exported(tmp_path / "stopped")
        assert one.keys() == other.keys()
        for name in one:
            assert torch.equal(one[name], other[name]), name

    def test_what_does_not_belong_together(self, run, tmp_path):
        images = run(tmp_path / "images", *UNETS, "--aim", "reconstruction")
        for sentence, options in (
            ("is trained for both", ("--network", NETWORK, "--aim", "reconstruction")),
            ("then --aim task", (*LI_NET, "--aim", "both")),
            ("without --network", (*UNETS, "--aim", "task")),
            ("applies to --aim both", (*after(images), "--reconstruction_weight", "1")),
            ("the classes mass", (*after(images), "--target", "ventricles")),
            ("new --sampler", (*after(images), "--acceleration", "4")),
            ("--resolution 32", (*after(images), "--resolution", "16")),
            ("no reconstruction", (*LI_NET, "--aim", "labels", "--freeze", "reconstruction")),
        ):
            with pytest.raises(InputError, match=sentence):
                run(tmp_path / "other", *options, network="--network" in options)
            assert not (tmp_path / "other").exists()


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
        (("--sampler", "per_contrast"), "another sampler"),
        (("--network", "large"), "unknown --network 'large'"),
        (("--network", "small:wide=4"), "wide"),
        (("--network", "small:num_classes=5"), "num_classes"),
        (("--target", "liver"), "liver"),
        (("--contrast", "PDFS"), "PDFS"),
        (("--acceleration", "4"), "omit --acceleration"),
        (("--resolution", "128"), "64 pixels"),
        (("--entropy_weight", "1"), "--reconstruction_weight 0"),
        (
            (*UNETS, "--aim", "reconstruction", "--entropy_weight", "1"),
            "image: omit --entropy_weight",
        ),
        ((*LI_NET, "--aim", "labels", "--entropy_weight", "1"), "no sampler"),
        (
            (*UNETS, "--aim", "reconstruction", "--freeze", "sampler", "reconstruction"),
            "nothing is left to train",
        ),
        ((*CLASSIFY, "--reconstruction_weight", "1"), "returns no image"),
        ((*CLASSIFY, "--field_of_view", "0.5"), "whole slices"),
        (("--field_of_view", "0.3"), "19 pixels"),
        ((*CLASSIFY, "--entropy_weight", "1", "--snr", "0"), "set --snr"),
        (("--num_coils", "3", "--center_fraction", "0"), "--center_fraction"),
        (("--num_coils", "3", "--magnitude_images"), "--num_coils 1"),
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


class TestCommandLine:
    """``ctxrecon task`` with the trained model."""

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
        assert "already undersampled" in capsys.readouterr().err
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
        assert "applies to segmentation" in capsys.readouterr().err
        call = ["reconstruct", scan, "--model", folder / "pipeline", "--device", "cpu"]
        assert status(*call, "--out", tmp_path / "image.npy") == 2
        assert "ctxrecon task" in capsys.readouterr().err

    def test_coil_maps_of_a_calibration_scan(self, run, tmp_path):
        """Every second line has no center to estimate maps from."""
        folder = run(tmp_path / "run")
        whole = read_scan(self.scan(tmp_path)).kspace
        call = ("task", "--model", folder / "pipeline", "--device", "cpu")
        check_calibration_is_used(tmp_path, whole, *call)
        assert np.isfinite(np.load(tmp_path / "out" / "segmentation_probabilities.npy")).all()

    def test_other_models(self, prior, tmp_path, capsys):
        call = ["task", self.scan(tmp_path), "--model", prior, "--device", "cpu"]
        assert status(*call, "--out", tmp_path / "out") == 2
        assert "ctxrecon reconstruct" in capsys.readouterr().err


def test_the_spectrum_is_that_of_the_training_slices(run, tmp_path):
    folder = run(
        tmp_path / "run", "--sampler", "fixed:mask=spectrum2d:acceleration=6", "--scans", "3"
    )
    sampler = load_task(folder / "pipeline").sampler
    assert not sampler.lacks_spectrum
    assert int(sampler().sum()) == round(32 * 32 / 6)
