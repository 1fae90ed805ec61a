"""The script that trains reconstructors: labels of every kind, resume, distribution."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from narrow import present
from scripts import TRAINING, forget_accelerate, in_two_processes, start, weights

from ctxrecon.datasets import write_shard
from ctxrecon.errors import InputError
from ctxrecon.metadata import ScanMetadata
from ctxrecon.operators import CartesianSense
from ctxrecon.phantom import AnatomyBank, PhantomSlices
from ctxrecon.pipelines import ReconstructionPipeline, load_reconstructor
from ctxrecon.reconstructors import UnrolledGenerator
from ctxrecon.training import reconstructor as script
from ctxrecon.training.reconstructor import (
    Labels,
    MeasurementSamples,
    Sampling,
    UndersampledScans,
    split,
)

SCRIPT = TRAINING / "train_reconstructor.py"
UNPAIRED = ("--scans", "6", "--loss", "none", "--adversarial", "wgan_gp")
PLAYED = ("--critic_steps", "2", "--critic_width", "2", "--critic_learning_rate", "1e-2")


@pytest.fixture
def run(bank, monkeypatch):
    """Train in this process; the options are those of a tiny run, then those given."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")

    def train(folder: Path, *options: str) -> Path:
        forget_accelerate()
        script.main([*arguments(bank, folder), *options])
        return folder

    return train


def arguments(bank: Path, folder: Path) -> list[str]:
    return [
        *("--network", "unrolled:width=4:iterations=1:blocks=1", "--bank", str(bank)),
        *("--output_dir", str(folder), "--resolution", "32", "--train_batch_size", "2"),
        *("--masks", "variable_density2d", "--accelerations", "3", "--center_fraction", "0.25"),
        *("--num_coils", "3", "--max_train_steps", "3", "--lr_warmup_steps", "2"),
        *("--validation_scans", "0", "--report_to", "none"),
    ]


@pytest.mark.parametrize(
    "options",
    [
        ("--loss", "ssim"),
        ("--loss", "gaussian", "--predict_std"),
        ("--adversarial", "wgan_gp", "--paired_start", "1", "--paired_end", "2"),
        ("--labels", "disjoint", "--labeled", "4", "--magnitude_labels", *UNPAIRED),
        ("--labels", "partial", "--labeled", "2", *UNPAIRED),
        ("--labels", "none", "--loss", "none"),
    ],
)
def test_every_kind_of_labels_moves_the_network(run, tmp_path, options):
    folder = run(tmp_path / "run", *options)
    pipe = load_reconstructor(folder / "pipeline")
    assert pipe.reconstructor.config.width == 4
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 3
    assert np.isfinite(lines[-1]["loss"])
    moved = weights(folder)["reconstructor.networks.0.last.weight"]
    first = run(tmp_path / "other", *options, "--max_train_steps", "1")
    assert not torch.equal(moved, weights(first, 1)["reconstructor.networks.0.last.weight"])
    assert any(name.startswith("critic.") for name in weights(folder)) == (
        "--adversarial" in options
    )
    card = (folder / "pipeline" / "README.md").read_text()
    assert "load_reconstructor" in card


@pytest.mark.parametrize("kind", ["paired", "disjoint"])
def test_a_resumed_run_is_the_same_to_the_bit(run, tmp_path, kind):
    options = ["--adversarial", "wgan_gp", "--paired_start", "1", "--paired_end", "3"]
    if kind == "disjoint":
        options = ["--labels", "disjoint", "--labeled", "4", *UNPAIRED, *PLAYED]
    whole = run(tmp_path / "whole", *options, "--lr_scheduler", "constant")
    stopped = tmp_path / "stopped"
    run(stopped, *options, "--lr_scheduler", "constant", "--max_train_steps", "2")
    run(stopped, *options, "--lr_scheduler", "constant", "--resume_from_checkpoint", "latest")
    one, other = weights(whole), weights(stopped)
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


@pytest.mark.parametrize("unpaired", [False, True])
def test_two_processes_train_as_one(run, bank, tmp_path, unpaired):
    options = ["--scans", "4", "--adam_epsilon", "1e-3"]
    if unpaired:  # a critic draws random numbers of its own
        options += ["--labels", "disjoint", "--labeled", "4", *UNPAIRED[2:], *PLAYED]
    one = run(tmp_path / "one", *options, "--train_batch_size", "4")
    folder = tmp_path / "two"
    start([*in_two_processes(SCRIPT), *arguments(bank, folder), *options])
    for name, value in weights(one).items():
        torch.testing.assert_close(weights(folder)[name], value, rtol=1e-3, atol=1e-5)


def test_validation_and_fine_tuning(run, bank, tmp_path, monkeypatch):
    folder = run(tmp_path / "first", "--validation_scans", "2")
    line = json.loads((folder / "validation.jsonl").read_text().splitlines()[-1])
    assert line["step"] == 3
    assert line["psnr"] > 5
    assert (folder / "validation-3.png").stat().st_size > 5_000
    forget_accelerate()
    again = tmp_path / "second"
    command = arguments(bank, again)[2:]  # without --network
    script.main(
        [*command, "--pretrained_model_name_or_path", str(folder / "pipeline")]
        + ["--learning_rate", "0"]
    )
    kept = load_reconstructor(folder / "pipeline").reconstructor.state_dict()
    for name, value in load_reconstructor(again / "pipeline").reconstructor.state_dict().items():
        assert torch.equal(value, kept[name])


def test_validation_on_scans_with_two_sets_of_coil_maps(tmp_path, caplog):
    """Few coils on a small matrix: the estimate of one scan has two sets, the other's one."""
    torch.manual_seed(0)
    pipe = ReconstructionPipeline(UnrolledGenerator(width=4, iterations=1, blocks=1).eval())
    pipe.set_progress_bar_config(disable=True)
    sampling = Sampling(("uniform1d",), (4.0,), 0.25, num_coils=(3,))
    with caplog.at_level("INFO", "ctxrecon"):
        scores = UndersampledScans(2, 32, sampling).validate(pipe, tmp_path / "picture.png")
    assert "two sets" in caplog.text
    assert 5 < scores["psnr_zero_filled"] < 40


def test_a_critic_with_steps_and_a_rate_of_its_own(run, tmp_path):
    """The generator waits for its turn; at a rate of 0 it would stay as it was."""
    options = ["--labels", "disjoint", "--labeled", "4", *UNPAIRED, *PLAYED]
    options += ["--lr_scheduler", "constant", "--lr_warmup_steps", "0"]
    first = weights(run(tmp_path / "first", *options, "--max_train_steps", "1"), 1)
    second = weights(run(tmp_path / "second", *options, "--max_train_steps", "2"), 2)
    rested = run(tmp_path / "rested", *options, "--max_train_steps", "2", "--learning_rate", "0")
    resting = weights(rested, 2)
    name = "reconstructor.networks.0.last.weight"
    assert not first[name].any()  # as it begins
    assert second[name].any()
    assert not resting[name].any()
    name = "critic.layers.0.weight"
    assert not torch.equal(first[name], second[name])
    assert torch.equal(second[name], resting[name])


def test_a_text_encoder_modulates(run, prior, tmp_path):
    more = ("--max_train_steps", "5")  # what it modulates is 0 to start with
    folder = run(tmp_path / "run", "--text_encoder", str(prior), *more)
    pipe = load_reconstructor(folder / "pipeline")
    assert pipe.reconstructor.text_width == present(pipe.text_encoder).config.hidden_size
    name = "reconstructor.networks.0.blocks.0.modulation.linear.weight"
    assert weights(folder, step=5)[name].any()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--network", "transformer"), "unknown --network 'transformer'"),
        (("--network", "unrolled:widht=4"), "widht"),
        (("--pretrained_model_name_or_path", "x"), "either --network or"),
        (("--train_data_dir", "x"), "either --bank or"),
        (("--labels", "disjoint", *UNPAIRED), "set --labeled N"),
        (("--labeled", "3"), "disjoint labels"),
        (("--labels", "partial", "--labeled", "9", *UNPAIRED), "at most 6 labeled"),
        (
            ("--labels", "partial", "--labeled", "9", "--loss", "none")
            + ("--adversarial", "wgan_gp"),
            "set --scans M",
        ),
        (("--scans", "0"), "--scans"),
        (("--snr", "-1"), "--snr"),
        (("--accelerations", "0.5"), "acceleration"),
        (("--network", "unrolled:width=-4"), "width as a whole number"),
        (("--network", "modl:iterations=0"), "iterations as a whole number"),
    ],
)
def test_bad_options(run, tmp_path, options, sentence):
    with pytest.raises(InputError, match=sentence):
        run(tmp_path / "run", *options)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--scans", "6"), "--scans of at most 5"),
        (
            ("--labels", "disjoint", "--labeled", "4", "--loss", "none")
            + ("--adversarial", "wgan_gp"),
            "--labeled of at most [23]",
        ),
    ],
)
def test_a_prepared_slice_is_not_taken_for_two_scans(tmp_path, options, sentence):
    source = tmp_path / "a.h5"
    source.write_bytes(b"four")
    images = np.ones((3, 2, 32, 32), np.float32)
    for name, count in (("a", 3), ("b", 2)):
        write_shard(
            tmp_path / f"{name}.safetensors",
            images[:count],
            [ScanMetadata(anatomy="knee")] * count,
            source=source,
        )
    command = ["--network", "unet", "--train_data_dir", str(tmp_path), "--resolution", "32"]
    command += ["--output_dir", str(tmp_path / "run"), "--max_train_steps", "1", *options]
    with pytest.raises(InputError, match=sentence):
        script.main(command)


class TestSamples:
    """Training data of a network."""

    @staticmethod
    def samples(bank: Path, labels: Labels, **options: object) -> MeasurementSamples:
        source = PhantomSlices(AnatomyBank.load(bank), resolution=32)
        given = {"masks": ("variable_density2d",), "accelerations": (3.0,), "num_coils": (3,)}
        if labels.kind == "disjoint":
            first, second = AnatomyBank.load(bank).split(0.5)
            source = PhantomSlices(first, resolution=32)
            options["label_source"] = PhantomSlices(second, resolution=32)
        sampling = Sampling(**given, center_fraction=0.25, fixed=bool(options.pop("fixed", False)))  # type: ignore[arg-type]
        return MeasurementSamples(source, sampling, labels, resolutions=(32,), **options)  # type: ignore[arg-type]

    def test_measurement_and_target_belong_together(self, bank):
        samples = self.samples(bank, Labels())
        item, other = samples[0, 5], samples[0, 6]
        operator = CartesianSense(item["mask"][None], item["coil_maps"][None])

        def error(target: torch.Tensor) -> float:
            residual = operator(target[None]) - item["kspace"]
            return float(residual.norm() / item["kspace"].norm())

        assert error(item["target"]) < 0.2  # noise, and maps from few samples
        assert error(other["target"]) > 0.5
        assert not (item["kspace"] * ~item["mask"]).any()

    def test_the_same_whenever_it_is_asked_for(self, bank):
        for labels in (Labels(), Labels("none"), Labels("disjoint", 3, magnitude=True)):
            first, second = (self.samples(bank, labels, scans=4) for _ in range(2))
            second[0, 3]  # another order
            for name, value in first[0, 7].items():
                other = second[0, 7][name]
                same = torch.equal(value, other) if isinstance(value, torch.Tensor) else True
                assert same, name

    def test_fixed_and_new_masks(self, bank):
        fixed = self.samples(bank, Labels(), scans=1, fixed=True)
        assert torch.equal(fixed[0, 0]["mask"], fixed[0, 9]["mask"])
        new = self.samples(bank, Labels(), scans=1)
        assert not torch.equal(new[0, 0]["mask"], new[0, 9]["mask"])

    def test_partial_labels_are_of_the_scans_themselves(self, bank):
        samples = self.samples(bank, Labels("partial", 2), scans=5, fixed=True)
        scans = [samples._scan(n, 32, 3, ("variable_density2d", 3.0))["target"] for n in range(5)]
        found = set()
        for number in range(10):
            label = samples[0, number]["label"]
            found |= {n for n, scan in enumerate(scans) if torch.equal(label, scan)}
        assert found == {0, 1}

    def test_disjoint_labels_are_of_other_people(self, bank):
        samples = self.samples(bank, Labels("disjoint", 4, magnitude=True), scans=5)
        sources: list[Any] = [samples.source, samples.label_source]
        people = [set(source.bank.subjects) for source in sources]
        assert all(people)
        assert not people[0] & people[1]
        assert not samples[0, 0]["label"].is_complex()
        with pytest.raises(InputError, match="label_source` is required"):
            self.samples(bank, Labels("partial", 2), scans=5, label_source=samples.source)

    @pytest.mark.parametrize("kind", ["none", "disjoint"])
    def test_a_scan_without_a_label_of_its_own_keeps_its_mask(self, bank, kind):
        """Else its visits would add up to a fully sampled scan."""
        labels = Labels(kind, 2 if kind == "disjoint" else None)
        samples = self.samples(bank, labels, scans=1)
        first = (samples[0, 0]["kspace"] != 0).any(dim=0)
        union = torch.stack([(samples[0, n]["kspace"] != 0).any(dim=0) for n in range(9)])
        assert torch.equal(union.any(dim=0), first)

    def test_the_phase_of_a_single_coil_stays_in_the_image(self, bank):
        source = PhantomSlices(AnatomyBank.load(bank), resolution=32)
        sampling = Sampling(("variable_density2d",), (3.0,), 0.25, num_coils=(1,), snr=0.0)
        item = MeasurementSamples(source, sampling, Labels(), resolutions=(32,))[0, 0]
        assert torch.equal(item["coil_maps"], torch.ones_like(item["coil_maps"]))
        operator = CartesianSense(item["mask"][None])
        torch.testing.assert_close(operator(item["target"][None])[0], item["kspace"])

    def test_memory_has_a_limit(self, bank, monkeypatch):
        import ctxrecon.training.scans as module

        samples = self.samples(bank, Labels(), scans=4)
        samples[0, 0]
        assert len(samples._memory.kept) == 1
        monkeypatch.setattr(module, "_KEPT_BYTES", samples._memory.bytes)
        for number in range(4):
            samples[0, number]
        assert len(samples._memory.kept) == 1

    def test_numbers_of_coils_are_drawn_step_by_step(self, bank):
        source = PhantomSlices(AnatomyBank.load(bank), resolution=32)
        sampling = Sampling(("variable_density2d",), (3.0,), 0.25, num_coils=(2, 3))
        samples = MeasurementSamples(source, sampling, Labels(), scans=2, resolutions=(32,))
        coils = [{len(samples[step, n]["kspace"]) for n in (0, 1)} for step in range(8)]
        assert all(len(found) == 1 for found in coils)  # or they could not be batched
        assert set.union(*coils) == {2, 3}

    def test_samples_are_split_in_two(self, bank):
        samples = self.samples(bank, Labels("none"))
        item = samples[0, 0]
        held_out, seen = item["held_out"], item["mask"]
        assert not (held_out & seen).any()
        assert int(held_out.sum()) == round(0.4 * int((held_out | seen).sum()))
        assert seen[0, 14:18, 14:18].all()
        assert torch.equal(held_out | seen, (item["kspace"] != 0).any(dim=0, keepdim=True))

    def test_all_of_a_small_mask_may_be_held_out_but_the_middle(self):
        mask = torch.zeros(1, 8, 8, dtype=torch.bool)
        mask[:, 2:6, 2:6] = True
        held_out, seen = split(mask, 0.9, np.random.default_rng(0))
        assert not held_out.any()
        assert torch.equal(seen, mask)
