"""The script that trains samplers, and the command line with its checkpoints."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import check_calibration_is_used
from command_line import run as status
from gaussian import seeded
from narrow import present
from scripts import TRAINING, forget_accelerate, in_two_processes, start, weights

from ctxrecon.coils import simulate_coil_maps
from ctxrecon.datasets import write_shard
from ctxrecon.errors import InputError
from ctxrecon.fourier import fft2c, ifft2c
from ctxrecon.io import read_scan, write_scan
from ctxrecon.masks.learned import kspace_energy, spectrum_mask
from ctxrecon.metadata import ScanMetadata
from ctxrecon.phantom import contrast_scan, knee_anatomy, multi_echo
from ctxrecon.pipelines import load_joint
from ctxrecon.scan import Scan
from ctxrecon.tasks import train_t2star_mlp
from ctxrecon.training import masks as script
from ctxrecon.training.masks import build

SCRIPT = TRAINING / "train_sampler.py"
ECHOES = ("--contrasts", "multi_echo", "--sampler", "per_contrast:learn_split=true:acceleration=3")
HRU = "hru_net:width=4:depth=2:blocks=1"


@pytest.fixture
def run(bank, monkeypatch):
    """Train in this process; the options are those of a tiny run, then those given."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    # A map that has hardly been learned has gradients too.
    monkeypatch.setattr(build, "train_t2star_mlp", partial(train_t2star_mlp, num_steps=20))

    def train(folder: Path, *options: str) -> Path:
        forget_accelerate()
        script.main([*arguments(bank, folder), *options])
        return folder

    return train


def arguments(bank: Path, folder: Path) -> list[str]:
    return [
        *(
            "--network",
            "unrolled:width=4:iterations=1:blocks=1",
            "--sampler",
            "loupe:acceleration=3",
        ),
        *("--bank", str(bank), "--output_dir", str(folder), "--resolution", "32"),
        *("--train_batch_size", "2", "--center_fraction", "0.25"),
        *("--num_coils", "3", "--max_train_steps", "3", "--lr_warmup_steps", "2"),
        *("--validation_scans", "0", "--report_to", "none"),
    ]


@pytest.mark.parametrize(
    ("options", "moved"),
    [
        (("--sampler", "loupe:lines=false:acceleration=3"), "sampler.weights"),
        (("--loss", "gaussian", "--predict_std"), "sampler.weights"),
        (
            ("--loss", "gaussian", "--network", "unet:width=4:depth=1:predict_std=joint"),
            "reconstructor.network.last.weight",
        ),
        (("--loss", "mse"), "sampler.weights"),
        (("--network", "pnp:width=4:depth=1:iterations=2"), "reconstructor.denoiser.last.weight"),
        (("--sampler", "pattern_generator:ratios=[0.3,0.5]"), "sampler.embeddings"),
        (("--sampler", "sequential:stages=2:width=4:acceleration=3"), "sampler.score.last.weight"),
        ((*ECHOES, "--network", HRU, "--aim", "task"), "sampler.split"),
        ((*ECHOES, "--network", HRU, "--aim", "both"), "sampler.weights"),
        (
            (
                "--contrasts",
                "pd_pair",
                "--anatomy",
                "knee",
                "--sampler",
                "per_contrast:acceleration=3",
            )
            + ("--network", "unet_i:width=4:depth=2"),
            "sampler.weights",
        ),
    ],
)
def test_every_sampler_moves(run, tmp_path, options, moved):
    folder = run(tmp_path / "run", *options)
    first = run(tmp_path / "other", *options, "--max_train_steps", "1")
    assert not torch.equal(weights(folder)[moved], weights(first, 1)[moved])
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert np.isfinite(lines[-1]["loss"])
    pipe = load_joint(folder / "pipeline")
    assert (pipe.relaxometer is not None) == ("--aim" in options)
    assert "load_joint" in (folder / "pipeline" / "README.md").read_text()


def test_the_sampler_has_a_learning_rate_of_its_own(run, tmp_path):
    options = ("--max_train_steps", "1", "--lr_warmup_steps", "0", "--lr_scheduler", "constant")
    folder = run(tmp_path / "run", *options, "--sampler_learning_rate", "0")
    other = run(tmp_path / "other", *options, "--sampler_learning_rate", "0.1")
    name = "reconstructor.networks.0.last.weight"
    assert torch.equal(weights(folder, 1)[name], weights(other, 1)[name])
    step = weights(other, 1)["sampler.weights"] - weights(folder, 1)["sampler.weights"]
    # Adam's first step is the learning rate, where there is a gradient at all.
    assert float(step.abs().max()) == pytest.approx(0.1, rel=1e-3)


def test_fixed_masks_have_nothing_to_learn(run, tmp_path):
    folder = run(tmp_path / "run", "--sampler", "fixed:mask=gaussian1d:acceleration=3")
    assert load_joint(folder / "pipeline").sampler.mask == "gaussian1d"


def test_the_spectrum_is_that_of_the_training_scans(run, bank, tmp_path):
    options = ["--scans", "3", "--sampler", "fixed:mask=spectrum2d:acceleration=6"]
    folder = run(tmp_path / "run", *options)
    config = script.parse_args([*arguments(bank, tmp_path / "other"), *options])
    center = torch.ones(1, 1, 32, 32, dtype=torch.bool)
    samples = script.ContrastSamples(script.source(config), center, 3, 3, seed=config.seed)
    sampler = load_joint(folder / "pipeline").sampler
    energy = kspace_energy(torch.cat([samples[0, n]["target"] for n in range(3)]))
    # Coil maps are estimated from the centre alone here, from everything there.
    found, expected = sampler()[0, 0], spectrum_mask(energy, 6, 0.25, lines=False)[0, 0]
    assert int((found & expected).sum()) > 0.9 * int(found.sum())
    assert int(found.sum()) == round(32 * 32 / 6)


def test_magnitude_images_have_a_conjugate_symmetric_kspace(bank, tmp_path):
    options = ["--num_coils", "1", "--magnitude_images"]
    config = script.parse_args([*arguments(bank, tmp_path), *options])
    source, center = script.source(config), torch.ones(1, 1, 32, 32, dtype=torch.bool)

    def asymmetry(kspace):
        flipped = kspace.flip(-2, -1).roll((1, 1), (-2, -1)).conj()
        return float((kspace - flipped).norm() / kspace.norm())

    for magnitude, snr in ((True, 0.0), (True, 100.0), (False, 0.0)):
        samples = script.ContrastSamples(source, center, 2, 1, snr, magnitude=magnitude)
        scan = samples[0, 1]
        assert (asymmetry(scan["kspace"]) < (0.1 if snr else 1e-5)) == magnitude
        assert bool((scan["target"].real >= -1e-5).all()) == (magnitude and not snr)
        torch.testing.assert_close(fft2c(scan["target"])[:, None], scan["kspace"])
    held_out = [
        script.ContrastScans(2, 32, "one", "knee", 1, 0.0, magnitude=magnitude).scans[1]
        for magnitude in (True, False)
    ]
    assert asymmetry(held_out[0].kspace) < 1e-5 < asymmetry(held_out[1].kspace)
    torch.testing.assert_close(held_out[0].images.real, held_out[1].images.abs())


def test_a_resumed_run_is_the_same_to_the_bit(run, tmp_path):
    options = [*ECHOES, "--network", HRU, "--aim", "both", "--lr_scheduler", "constant"]
    whole, stopped = run(tmp_path / "whole", *options), tmp_path / "stopped"
    run(stopped, *options, "--max_train_steps", "2")
    run(stopped, *options, "--resume_from_checkpoint", "latest")
    one, other = weights(whole), weights(stopped)
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def test_two_processes_train_as_one(run, bank, tmp_path):
    options = ["--scans", "4", "--adam_epsilon", "1e-3"]
    options += ["--sampler", "pattern_generator:ratios=[0.3,0.5]"]
    one = run(tmp_path / "one", *options, "--train_batch_size", "4")
    folder = tmp_path / "two"
    start([*in_two_processes(SCRIPT), *arguments(bank, folder), *options])
    for name, value in weights(one).items():
        torch.testing.assert_close(weights(folder)[name], value, rtol=1e-3, atol=1e-5)


def test_a_resumed_run_takes_new_learning_rates(run, tmp_path):
    folder = run(tmp_path / "run", "--max_train_steps", "2")
    before = weights(folder, 2)["sampler.weights"]
    run(folder, "--resume_from_checkpoint", "latest", "--sampler_learning_rate", "0")
    assert torch.equal(weights(folder)["sampler.weights"], before)


def test_a_run_that_was_stopped_before_its_export_is_exported(run, tmp_path):
    import shutil

    folder = run(tmp_path / "run")
    exported = load_joint(folder / "pipeline").sampler.state_dict()
    shutil.rmtree(folder / "pipeline")
    run(folder, "--resume_from_checkpoint", "latest")
    again = load_joint(folder / "pipeline").sampler.state_dict()
    assert all(torch.equal(again[name], value) for name, value in exported.items())


def test_validation_and_what_goes_on_from_it(run, bank, tmp_path):
    folder = run(tmp_path / "first", "--validation_scans", "2")
    line = json.loads((folder / "validation.jsonl").read_text().splitlines()[-1])
    assert line["psnr"] > 5
    assert line["psnr"] == pytest.approx(line["psnr_contrast_0"])
    assert (folder / "validation-3.png").stat().st_size > 5_000
    # A policy, on the reconstruction that was just trained and stays as it is.
    forget_accelerate()
    command = arguments(bank, tmp_path / "policy")[4:]  # without --network and --sampler
    pretrained = ("--pretrained_model_name_or_path", str(folder / "pipeline"))
    script.main(
        [
            *command,
            *pretrained,
            "--sampler",
            "greedy:width=4:acceleration=3",
            "--validation_scans",
            "1",
        ]
    )
    pipe = load_joint(tmp_path / "policy" / "pipeline")
    assert type(pipe.sampler).__name__ == "GreedyPolicy"
    kept = load_joint(folder / "pipeline").reconstructor.state_dict()
    for name, value in pipe.reconstructor.state_dict().items():
        assert torch.equal(value, kept[name])
    # Without another sampler its own goes on.
    forget_accelerate()
    command = arguments(bank, tmp_path / "more")[4:]
    where = command.index("--center_fraction")
    del command[where : where + 2]
    script.main([*command, *pretrained])
    assert type(load_joint(tmp_path / "more" / "pipeline").sampler).__name__ == "LOUPE"


def test_prepared_slices_and_prompts(tmp_path, prior, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    forget_accelerate()
    source = tmp_path / "a.h5"
    source.write_bytes(b"four")
    images = np.random.default_rng(0).standard_normal((3, 2, 32, 32)).astype(np.float32)
    shard = tmp_path / "set" / "a.safetensors"
    shard.parent.mkdir()
    write_shard(shard, images, [ScanMetadata(anatomy="knee")] * 3, source=source)
    command = arguments(tmp_path, tmp_path / "run")
    where = command.index("--bank")
    command[where : where + 2] = ["--train_data_dir", str(shard.parent)]
    script.main([*command, "--text_encoder", str(prior)])
    pipe = load_joint(tmp_path / "run" / "pipeline")
    assert pipe.reconstructor.text_width == present(pipe.text_encoder).config.hidden_size


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--sampler", "oracle"), "unknown --sampler 'oracle'"),
        (("--network", "oracle"), "unknown --network 'oracle'"),
        (("--sampler", "loupe:slop=4"), "slop"),
        (("--sampler", "loupe:slope=-1"), "positive `slope"),
        (("--pretrained_model_name_or_path", "x"), "either --network or"),
        (("--train_data_dir", "x"), "either --bank or"),
        (("--sampler", "greedy"), "train one first"),
        (("--aim", "task"), "needs echoes"),
        (("--loss", "gaussian"), "--predict_std together"),
        (("--scans", "0"), "--scans"),
        (("--magnitude_images",), "--num_coils 1"),
        (("--anatomy", "heart"), "no heart, only knee"),
        (("--acceleration", "0.5"), "acceleration"),
        (("--sampler", "pattern_generator", "--acceleration", "4"), "omit --acceleration"),
        (("--sampler", "per_contrast:contrasts=3"), "3 contrasts"),
        ((*ECHOES, "--sampler", "sequential"), "adapts to a single image"),
        (("--sampler", "greedy", "--loss", "ssim"), "omit --aim and --loss"),
        (
            (*ECHOES, "--network", HRU, "--aim", "task", "--loss", "gaussian", "--predict_std"),
            "use --aim both",
        ),
    ],
)
def test_bad_options(run, tmp_path, options, sentence):
    with pytest.raises(InputError, match=sentence):
        run(tmp_path / "run", *options)
    assert not (tmp_path / "run").exists()


class TestCommandLine:
    """``ctxrecon reconstruct --model`` with the trained model."""

    @staticmethod
    def echoes(folder: Path) -> Path:
        """A fully sampled scan whose slices are five echoes."""
        source = seeded(4)
        protocols = multi_echo(source)
        full = contrast_scan(
            knee_anatomy(source, size=64),
            protocols,
            shape=(32, 32),
            num_coils=3,
            generator=source,
        )
        scan = Scan(
            kspace=full.kspace[0],
            mask=torch.ones(1, 1, 32, 32, dtype=torch.bool),
            metadata=full.metadata,
            target=full.images[0],
        )
        write_scan(folder / "echoes.npz", scan)
        return folder / "echoes.npz"

    def test_masks_images_and_maps(self, run, tmp_path, capsys):
        folder = run(tmp_path / "run", *ECHOES, "--network", HRU, "--aim", "both")
        scan, out = self.echoes(tmp_path), tmp_path / "out"
        call = ["reconstruct", scan, "--model", folder / "pipeline", "--device", "cpu"]
        assert status(*call, "--out", out, "--compare", "--steps", "2") == 0
        said = capsys.readouterr().out
        assert "acceleration 2.91" in said  # 11 of 32 lines on average
        assert np.load(out / "reconstruction.npy").shape == (5, 32, 32)
        masks = np.load(out / "reconstruction_masks.npy")
        assert masks.shape == (5, 1, 32, 32)
        assert masks.mean() == pytest.approx(1 / 3, abs=0.02)
        assert np.load(out / "reconstruction_t2star.npy").shape == (5 // 5, 32, 32)
        order = json.loads((out / "reconstruction_lines.json").read_text())
        assert [sum(map(len, stages)) for stages in order["contrasts"]] == [
            int(mask[0, 0].sum()) for mask in masks
        ]
        metrics = json.loads((out / "reconstruction_metrics.json").read_text())
        assert "and sampler" in json.dumps(metrics)
        # What a scanner measured with these lines is reconstructed as it is.
        np.save(tmp_path / "mask.npy", masks[:, 0])
        again = tmp_path / "again"
        assert status(*call, "--out", again, "--mask", tmp_path / "mask.npy") == 0
        np.testing.assert_allclose(
            np.load(again / "reconstruction.npy"),
            np.load(out / "reconstruction.npy"),
            rtol=1e-4,
            atol=1e-5,
        )

    def test_a_network_of_one_contrast_takes_each_slice_for_itself(self, run, tmp_path, capsys):
        folder = run(tmp_path / "run")
        scan, out = self.echoes(tmp_path), tmp_path / "out"
        call = ["reconstruct", scan, "--model", folder / "pipeline", "--device", "cpu"]
        call += ["--out", out, "--acceleration", "2"]
        assert status(*call) == 0
        masks = np.load(out / "reconstruction_masks.npy")
        assert masks[:, 0, 0].sum(axis=-1).tolist() == [16] * 5
        np.save(tmp_path / "mask.npy", masks[0, 0])
        assert status(*call, "--mask", tmp_path / "mask.npy", "--overwrite") == 2
        assert "already undersampled" in capsys.readouterr().err

    def test_masks_do_not_depend_on_the_slices_selected(self, run, tmp_path):
        folder = run(tmp_path / "run", "--sampler", "fixed:mask=random1d:acceleration=2")
        call = ["reconstruct", self.echoes(tmp_path), "--model", folder / "pipeline"]
        call += ["--device", "cpu"]
        assert status(*call, "--out", tmp_path / "all") == 0
        assert status(*call, "--out", tmp_path / "two", "--slices", "3:5") == 0
        masks = [np.load(tmp_path / name / "reconstruction_masks.npy") for name in ("all", "two")]
        assert not np.array_equal(masks[0][3], masks[0][4])
        np.testing.assert_array_equal(masks[0][3:], masks[1])

    def test_coil_maps_of_a_calibration_scan(self, run, tmp_path):
        """Every second line has no center to estimate maps from."""
        folder = run(tmp_path / "run", "--num_coils", "3", "--center_fraction", "0.25")
        maps = simulate_coil_maps(3, (32, 32), generator=seeded(0))
        kspace = read_scan(self.echoes(tmp_path)).kspace[:2]
        kspace = fft2c(maps * ifft2c(kspace))
        call = ("reconstruct", "--model", folder / "pipeline", "--device", "cpu")
        check_calibration_is_used(tmp_path, kspace, *call)
        assert np.load(tmp_path / "out" / "reconstruction.npy").any()
