"""The script that trains with references: phases, orders, resume, what is written."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from narrow import present
from safetensors.torch import load_file
from scripts import TRAINING, forget_accelerate, in_two_processes, start, weights

import ctxrecon
from ctxrecon.errors import InputError
from ctxrecon.phantom import AnatomyBank, Misalignment, PhantomPairs, brain_anatomy
from ctxrecon.pipelines import CrossModalPipeline, load_cross_modal
from ctxrecon.reconstructors import CrossModal
from ctxrecon.reconstructors.warp import endpoint_error
from ctxrecon.training import UsageError
from ctxrecon.training import cross_modal as script
from ctxrecon.training.cross_modal import (
    PARTS,
    Alternating,
    CrossModalTraining,
    Objective,
    PairSamples,
)
from ctxrecon.training.loop import parts_of
from ctxrecon.training.reconstructor import Sampling
from ctxrecon.training.trained import TrainedPipeline

THETA, S, M, OMEGA, GAMMA = PARTS
CRITICS_OFF = ("--alignment_weight", "0", "--synthesis_weight", "0")


@pytest.fixture(scope="module")
def brains(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("brains") / "bank.npz"
    generator = torch.Generator().manual_seed(0)
    AnatomyBank.build([brain_anatomy(generator, size=64) for _ in range(2)]).save(path)
    return path


@pytest.fixture
def run(brains, monkeypatch):
    """Train in this process; the options are those of a tiny run, then those given."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")

    def train(folder: Path, *options: str) -> Path:
        forget_accelerate()
        script.main([*arguments(brains, folder), *options])
        return folder

    return train


def arguments(bank: Path, folder: Path) -> list[str]:
    network = "small:width=2:depth=1:cascades=1:synthesis_cascades=1:align_width=2:align_depth=1"
    return [
        *("--network", network, "--bank", str(bank), "--output_dir", str(folder)),
        *("--resolution", "32", "--masks", "random1d", "--accelerations", "4"),
        *("--train_batch_size", "2", "--max_train_steps", "3", "--lr_warmup_steps", "0"),
        *("--critic_width", "2", "--critic_depth", "2", "--learning_rate", "1e-3"),
        *("--validation_scans", "0", "--report_to", "none", "--lr_scheduler", "constant"),
    ]


def samples_of(bank: Path, **options: Any) -> PairSamples:
    pairs = PhantomPairs(AnatomyBank.load(bank), Misalignment(), magnitude=True, resolution=32)
    sampling = Sampling(("random1d",), (4.0,), num_coils=(1,), snr=0.0)
    return PairSamples(pairs, sampling, resolutions=(32,), **options)


def training_of(objective: Objective, **options: Any) -> CrossModalTraining:
    """With layers that start at zero moved, so that every part has a gradient."""
    torch.manual_seed(1)
    small = {"width": 2, "depth": 1, "cascades": 1, "synthesis_cascades": 1}
    network = CrossModal(**small, align_width=2, align_depth=1, **options)
    with torch.no_grad():
        for value in network.parameters():
            value += 0.1 * torch.randn(value.shape)
    pipe = CrossModalPipeline(network)
    return CrossModalTraining(pipe, objective, critic_width=2, critic_depth=2)


def one_iteration(
    model: CrossModalTraining, batch: dict[str, torch.Tensor]
) -> tuple[list[set[str]], torch.optim.AdamW]:
    """Which parts each step of the optimiser changed."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    changed: list[set[str]] = []

    class Recording:
        """An optimiser that compares the weights before and after."""

        zero_grad = staticmethod(optimizer.zero_grad)

        def step(self) -> None:
            parts = parts_of(model, PARTS)
            before = {name: [v.detach().clone() for v in vs] for name, vs in parts.items()}
            optimizer.step()
            changed.append(
                {
                    name
                    for name, values in parts.items()
                    if any(not torch.equal(a, b) for a, b in zip(before[name], values, strict=True))
                }
            )

    forget_accelerate()
    iterate = Alternating(model.objective.phases(), 1e4)
    iterate(Accelerator(cpu=True), model.train(), Recording(), batch)
    return changed, optimizer


@pytest.mark.parametrize(("guidance", "passes"), [("none", 1), ("synthetic", 2), ("synthetic", 1)])
def test_every_phase_changes_its_own_part_alone(brains, guidance, passes):
    samples = samples_of(brains)
    batch = samples.collate([samples[0, 0], samples[0, 1]])
    model = training_of(Objective(rounds=2), guidance=guidance, passes=passes)
    changed, optimizer = one_iteration(model, batch)
    alternation = [{M}, {OMEGA}, {S}, {GAMMA}]
    assert changed == [{THETA, S, M}, *alternation, *alternation]
    steps = {
        part: {int(optimizer.state[value]["step"]) for value in values}
        for part, values in parts_of(model, PARTS).items()
    }
    assert steps == {THETA: {1}, S: {3}, M: {3}, OMEGA: {2}, GAMMA: {2}}


def test_a_network_without_an_aligner_has_no_step_for_it(brains):
    samples = samples_of(brains)
    batch = samples.collate([samples[0, 0], samples[0, 1]])
    model = training_of(Objective(), guidance="synthetic", passes=1, alignment=False)
    changed, _ = one_iteration(model, batch)
    assert changed == [{THETA, M}, {M}, {OMEGA}, {GAMMA}]


def test_weight_decay_applies_to_every_part(run, tmp_path):
    options = ("--max_train_steps", "1", "--learning_rate", "0.1")
    plain = weights(run(tmp_path / "plain", *options), 1)
    decayed = weights(run(tmp_path / "decayed", *options, "--adam_weight_decay", "5"), 1)
    changed = {name for name in plain if not torch.equal(plain[name], decayed[name])}
    assert {part for part in PARTS if any(name.startswith(part) for name in changed)} == set(PARTS)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"order": "joint", "rounds": 5}, [{THETA, S, M}, {OMEGA}, {GAMMA}]),
        ({"order": "alternating"}, [{THETA}, {M}, {OMEGA}, {S}, {GAMMA}]),
        ({"rounds": 0}, [{THETA, S, M}]),
        ({"alignment": 0.0, "synthesis": 0.0, "paired": 1.0}, [{THETA, S, M}]),
        ({"alignment": 0.0}, [{THETA, S, M}, {M}, {OMEGA}]),
        ({"synthesis": 0.0}, [{THETA, S, M}, {S}, {GAMMA}]),
        ({"order": "registration", "rounds": 3}, [{S}]),
    ],
)
def test_orders(options, parts):
    phases = Objective(**options).phases()
    assert [set(phase.parts) for phase in phases] == parts


@pytest.mark.parametrize("passes", [1, 2])
def test_rounds_align_to_what_the_network_aligns_to(brains, passes):
    samples = samples_of(brains)
    model = training_of(Objective(), guidance="aligned", passes=passes)
    _, state = model(samples.collate([samples[0, 0], samples[0, 1]]))
    last = model.reconstructor.run(state.data)[-1]
    expected = state.data.zero_filled if passes == 1 else last.images
    torch.testing.assert_close(state.images, expected)


def test_rounds_make_the_images_anew_between():
    names = [phase.name for phase in Objective(rounds=3).phases()]
    assert len(names) == 1 + 3 * 4 + 2
    assert names.count("refresh") == 2


def test_critics_see_the_images_of_algorithm_1(brains):
    """ω sees x_G of before m has moved; γ sees that of the moved m and the x_A of before."""
    samples = samples_of(brains)
    batch = samples.collate([samples[0, 0]])
    model = training_of(Objective()).eval()
    _, state = model(batch)
    first = state.synthetic
    with torch.no_grad():
        for value in model.reconstructor.synthesizer.parameters():
            value.add_(0.1)
    _, state = model(batch, M, state)
    loss, state = model(batch, OMEGA, state)
    critic = model.synthesis_critic
    expected = critic(critic.seen(state.target)) - critic(critic.seen(first))
    torch.testing.assert_close(loss, expected)
    _, state = model(batch, S, state)
    torch.testing.assert_close(
        state.synthetic, model.reconstructor.synthesize(state.data, state.aligned)
    )
    assert not torch.allclose(state.synthetic, first)


def test_the_joint_loss_is_the_weighted_sum(brains):
    samples = samples_of(brains)
    batch = samples.collate([samples[0, 0], samples[0, 1]])

    def loss(objective: Objective) -> torch.Tensor:
        return training_of(objective).eval()(batch)[0]

    alone = Objective(1.0, 0.0, 0.0, 0.0)
    total = loss(alone)
    for other in (
        replace(alone, alignment=3.0),
        replace(alone, synthesis=5.0),
        replace(alone, smoothness=7.0),
    ):
        total = total + loss(other) - loss(alone)
    torch.testing.assert_close(loss(Objective(1.0, 3.0, 5.0, 7.0)), total)
    assert bool((loss(replace(alone, paired=2.0)) > loss(alone)).all())


def test_the_known_motion_trains_the_aligner(brains):
    """A step against the loss brings the displacement nearer to the true one."""
    batch = samples_of(brains).collate([samples_of(brains)[0, 0]])
    model = training_of(Objective(1.0, 0.0, 0.0, 0.0, motion=2.0), guidance="aligned")
    state = model(batch)[1]
    network = model.reconstructor

    def distance() -> torch.Tensor:
        found = [one.displacement for one in network.run(state.data, synthesis=False)]
        errors = [endpoint_error(one, batch["displacement"], batch["inside"]) for one in found]
        return torch.stack(errors).mean(dim=0)

    alone = training_of(Objective(1.0, 0.0, 0.0, 0.0), guidance="aligned")
    torch.testing.assert_close(model(batch)[0], alone(batch)[0] + 2 * distance())
    before = distance()
    optimizer = torch.optim.SGD(present(network.aligner).parameters(), lr=1e-3)
    before.sum().backward()
    optimizer.step()
    assert distance() < before


@pytest.mark.parametrize("coils", [1, 3])
def test_samples_are_scans_with_references(brains, coils):
    pairs = PhantomPairs(AnatomyBank.load(brains), Misalignment(), resolution=32)
    sampling = Sampling(("uniform1d",), (2.0,), 0.25, num_coils=(coils,), snr=50.0)
    samples = PairSamples(pairs, sampling, scans=3, resolutions=(32,))
    one, again = samples[0, 5], samples[0, 5]
    for name in ("kspace", "mask", "coil_maps", "target", "reference", "displacement", "inside"):
        assert torch.equal(one[name], again[name])
    assert one["kspace"].shape == (coils, 32, 32)
    assert not one["kspace"][~one["mask"].expand(coils, 32, 32)].any()
    assert one["metadata"].contrast == "T2"
    batch = samples.collate([samples[0, n] for n in range(3)])
    assert batch["reference"].shape == batch["target"].shape == (3, 32, 32)


def test_magnitudes_have_one_coil(brains):
    magnitudes = samples_of(brains)[0, 0]
    assert magnitudes["target"].imag.abs().max() < 1e-5
    assert magnitudes["reference"].imag.abs().max() < 1e-5
    pairs = PhantomPairs(AnatomyBank.load(brains), magnitude=True, resolution=32)
    with pytest.raises(InputError, match="num_coils 1"):
        PairSamples(pairs, Sampling(center_fraction=0.3, accelerations=(2.0,)), resolutions=(32,))


@pytest.mark.parametrize(
    "options",
    [
        ("--guidance", "none"),
        ("--guidance", "aligned", "--rounds", "2", "--smooth_rounds", "--motion_weight", "5"),
        ("--order", "joint", "--paired_weight", "10", *CRITICS_OFF),
        ("--num_coils", "3", "--center_fraction", "0.25"),
    ],
)
def test_every_option_trains(run, tmp_path, options):
    folder = run(tmp_path / "run", *options, "--max_train_steps", "2")
    pipe = ctxrecon.load(folder / "pipeline")
    assert isinstance(pipe, CrossModalPipeline)
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert np.isfinite(lines[-1]["loss"])
    moved = weights(folder, 2)["reconstructor.reconstructor.networks.0.last.weight"]
    assert moved.any()
    critics = [name for name in weights(folder, 2) if name.startswith("alignment_critic")]
    assert bool(critics) == (CRITICS_OFF[0] not in options)
    assert "load_cross_modal" in (folder / "pipeline" / "README.md").read_text()


def test_a_raw_reference_needs_one_pass(run, brains, tmp_path):
    folder = tmp_path / "run"
    command = arguments(brains, folder)
    command[1] += ":alignment=false:passes=1"
    forget_accelerate()
    script.main([*command, "--guidance", "aligned", *CRITICS_OFF])
    assert load_cross_modal(folder / "pipeline").reconstructor.aligner is None


def state_of(folder: Path) -> dict[str, torch.Tensor]:
    """Weights, averages, power iterations and moments of the last checkpoint."""
    return {
        f"{part} {name}": value
        for part in ("model", "model_ema", "optimizer")
        for name, value in load_file(folder / "checkpoint-3" / f"{part}.safetensors").items()
    }


def test_a_killed_run_goes_on_to_the_bit(run, tmp_path, monkeypatch):
    """All five parts, their moments, and the vectors of the spectral norms."""
    whole = state_of(run(tmp_path / "whole", "--checkpointing_steps", "1"))
    assert sum(name.startswith("optimizer") for name in whole) > 100
    assert any("_u" in name for name in whole)
    folder = tmp_path / "killed"
    child = os.fork()
    if not child:
        torch.set_num_threads(1)
        exports = []

        def export(self: TrainedPipeline, averages: Any) -> None:
            exports.append(averages)
            if len(exports) == 2:
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            monkeypatch.setattr(TrainedPipeline, "export", export)
            run(folder, "--checkpointing_steps", "1")
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert not (folder / "checkpoint-3").exists()
    run(folder, "--checkpointing_steps", "1", "--resume_from_checkpoint", "auto")
    again = state_of(folder)
    assert again.keys() == whole.keys()
    for name, value in whole.items():
        assert torch.equal(value, again[name]), name


def test_validation_measures_the_alignment(run, tmp_path):
    folder = run(tmp_path / "run", "--validation_scans", "1", "--magnitude", "--snr", "0")
    line = json.loads((folder / "validation.jsonl").read_text().splitlines()[-1])
    assert 5 < line["psnr_zero_filled"] < 40
    assert line["psnr"] > 5
    assert line["psnr_synthetic"] > 3
    assert line["endpoint_error_before"] > 0.3
    assert 0 <= line["folds"] <= 1
    assert (folder / "validation-3.png").stat().st_size > 5_000


def test_registration_trains_the_aligner_that_another_run_starts_from(run, tmp_path):
    """By the distance from the true motion, of the full image and of the zero-filled one."""
    first = run(tmp_path / "first", "--order", "registration", "--max_train_steps", "1")
    before = weights(first, 1)
    assert not any("critic" in name for name in before)
    second = run(tmp_path / "second", "--order", "registration", "--learning_rate", "1e-2")
    after = weights(second, 3)
    moved = {name.split(".")[1] for name in after if not torch.equal(before[name], after[name])}
    assert moved == {"aligner"}
    other = "small:width=3:depth=1:cascades=1:synthesis_cascades=1:align_width=2:align_depth=1"
    options = (
        "--network",
        other,
        "--aligner",
        str(second / "pipeline"),
        "--learning_rate",
        "1e-30",
    )
    third = load_cross_modal(run(tmp_path / "third", *options, *CRITICS_OFF) / "pipeline")
    trained = present(load_cross_modal(second / "pipeline").reconstructor.aligner)
    for name, value in present(third.reconstructor.aligner).state_dict().items():
        torch.testing.assert_close(value, trained.state_dict()[name])


@pytest.mark.parametrize(
    ("network", "said"),
    [
        ("small:width=2:depth=1:align_width=4:align_depth=1", "align_width"),
        ("small:width=2:depth=1:alignment=false:passes=1", "alignment=false"),
    ],
)
def test_an_aligner_that_does_not_fit(run, tmp_path, network, said):
    first = run(tmp_path / "first", "--order", "registration", "--max_train_steps", "1")
    with pytest.raises(InputError, match=said):
        run(tmp_path / "second", "--network", network, "--aligner", str(first / "pipeline"))


def test_a_text_encoder_modulates(run, prior, tmp_path):
    folder = run(tmp_path / "run", "--text_encoder", str(prior), "--max_train_steps", "1")
    pipe = load_cross_modal(folder / "pipeline")
    assert pipe.reconstructor.text_width == present(pipe.text_encoder).config.hidden_size


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        (("--gradient_accumulation_steps", "2"), UsageError, "train_batch_size"),
        (("--reconstruction_weight", "0"), UsageError, "reconstruction_weight"),
        (("--rounds", "0"), UsageError, "order joint"),
        (("--order", "backwards"), UsageError, "backwards"),
        (("--network", "huge"), InputError, "paper, small"),
        (("--order=registration", "--network=small:alignment=false:passes=1"), InputError, "align"),
        (("--magnitude", "--num_coils", "4", "--center_fraction", "0.25"), InputError, "coils"),
        (("--critic_depth", "8"), InputError, "128 pixels"),
    ],
)
def test_options_that_do_not_go_together(run, tmp_path, options, error, said):
    with pytest.raises(error, match=said):
        run(tmp_path / "run", *options)


@pytest.mark.slow
def test_two_processes_train_as_one(run, brains, tmp_path):
    options = ["--scans", "4", "--adam_epsilon", "1e-3"]
    one = run(tmp_path / "one", *options, "--train_batch_size", "4")
    folder = tmp_path / "two"
    start([*in_two_processes(TRAINING / "train_cross_modal.py"), *arguments(brains, folder)]
          + options)  # fmt: skip
    for name, value in weights(one).items():
        torch.testing.assert_close(weights(folder)[name], value, rtol=1e-3, atol=1e-5)
