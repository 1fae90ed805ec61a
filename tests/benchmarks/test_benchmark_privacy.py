"""The privacy half of the study of tasks: digits, knees, and who attacks their measurements."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from gaussian import complex_noise, seeded

from benchmarks.tasks import __main__ as study
from benchmarks.tasks import attackers, digits, frontier, privacy, privacy_page, tables
from benchmarks.tasks import knees as knee_runs
from benchmarks.tasks.attackers import AttackRun, LinearAttacker
from benchmarks.tasks.digits import Digits
from ctxrecon.errors import InputError
from ctxrecon.fourier import fft2c
from ctxrecon.masks.learned import FixedMasks
from ctxrecon.metrics import psnr
from ctxrecon.operators import CartesianSense
from ctxrecon.reconstructors import UNetReconstructor
from ctxrecon.training import reconstructor, tasks
from ctxrecon.training.reconstructor.build import starting_point


class Nothing(FixedMasks):
    """Masks without a sample."""

    def forward(self, acceleration: float | None = None, batch_size: int = 1, generator=None):
        return torch.zeros(batch_size, 1, *self.shape, dtype=torch.bool)


@pytest.fixture(scope="module")
def some() -> Digits:
    return Digits.draw(160, 1, snr=50.0)


class TestDigits:
    """Images rendered with fonts."""

    def test_they_follow_from_seed_and_number(self):
        images, labels = digits.render_digits(12, 5)
        more, others = digits.render_digits(20, 5)
        assert torch.equal(more[:12], images)
        assert torch.equal(others[:12], labels)
        assert not torch.equal(digits.render_digits(12, 6)[0], images)

    def test_they_are_white_on_black_within_the_image(self, some):
        assert some.images.shape == (160, 28, 28)
        assert float(some.images.min()) == 0
        assert float(some.images.amax(dim=(1, 2)).min()) > 0.5
        assert 0.05 < float(some.images.mean()) < 0.2
        border = torch.ones(28, 28, dtype=torch.bool)
        border[1:-1, 1:-1] = False
        assert float(some.images[:, border].mean()) < 0.01
        assert set(some.labels.tolist()) == set(range(10))

    def test_kspace_is_that_of_the_image_with_noise(self, some):
        noise = some.kspace - fft2c(some.images.to(torch.complex64))
        assert float(noise.abs().square().mean()) == pytest.approx(1 / 50**2, rel=0.02)
        everything = torch.ones(160, 1, 28, 28, dtype=torch.bool)
        assert float((some.zero_filled(everything) - some.images).abs().mean()) < 1 / 50

    def test_none_is_refused(self):
        with pytest.raises(InputError, match="one digit"):
            digits.render_digits(0, 0)

    def test_a_classifier_learns_more_than_chance(self, some):
        sampler = FixedMasks((28, 28), 2.0, "variable_density2d")
        run = digits.DigitRun(epochs=12, batch_size=32, width=4)
        pipe = digits.train_digits(sampler, some, run, entropy_weight=0.0, snr=50.0, seed=0)
        masks = digits.draw_masks(pipe.sampler, 2.0, len(some), 3)
        assert float(digits.classified(pipe, some, masks).float().mean()) > 0.3

    def test_suppression_lowers_the_entropy_of_a_sample(self, some):
        entropies = digits.sample_entropies(some, 50.0)
        found = {}
        for weight in (0.0, 3.0):
            torch.manual_seed(0)
            sampler = privacy.pattern_generator(8.0)
            run = digits.DigitRun(epochs=3, batch_size=32, width=4, sampler_learning_rate=0.2)
            pipe = digits.train_digits(sampler, some, run, entropy_weight=weight, snr=50, seed=0)
            masks = digits.draw_masks(pipe.sampler, 8.0, 20, 3)
            assert masks.sum(dim=(1, 2, 3)).tolist() == pytest.approx([98] * 20, abs=9)
            found[weight] = float((entropies.of(masks) / masks.sum(dim=(1, 2, 3))).mean())
        assert found[3.0] < found[0.0] - 0.5


class TestAttackers:
    """Linear estimates from no samples, from all samples and from some."""

    def test_the_linear_one_sees_the_mean_image_of_nothing(self, some):
        attacker = LinearAttacker(some.images, 1 / 50)
        images = attacker(some.kspace[:3], torch.zeros(3, 1, 28, 28, dtype=torch.bool))
        mean = some.images.mean(dim=0)
        torch.testing.assert_close(images, mean.expand_as(images))
        torch.testing.assert_close(
            attackers.attack_psnr(images, some.images[:3]),
            attackers.mean_psnr(some.images, some.images[:3]),
        )

    def test_the_linear_one_is_the_posterior_mean_of_a_gaussian(self):
        """The information form in image space yields the same estimate."""
        n, sigma = 4, 0.1
        images = torch.randn(60, n, n, generator=seeded(0))
        mask = torch.rand(1, 1, n, n, generator=seeded(1)) < 0.4
        kspace = fft2c(images[:1].to(torch.complex64)) + sigma * complex_noise((1, n, n), seeded(2))
        x = images.double().flatten(1)
        precision = torch.linalg.inv(torch.cov(x.T))
        basis = fft2c(torch.eye(n * n).double().view(-1, n, n).to(torch.complex128))
        rows = torch.view_as_real(basis[:, mask[0, 0]]).flatten(1).T  # samples, pixels
        y = torch.view_as_real(kspace[0][mask[0, 0]]).flatten().double()
        weight = 2 / sigma**2
        normal = precision + weight * rows.T @ rows
        expected = torch.linalg.solve(normal, precision @ x.mean(dim=0) + weight * rows.T @ y)
        found = LinearAttacker(images, sigma)(kspace, mask)
        torch.testing.assert_close(found[0].flatten(), expected.float(), rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize(("count", "noise"), [(1, 0.1), (3, 0.0)])
    def test_the_linear_one_needs_images_and_noise(self, some, count, noise):
        with pytest.raises(InputError, match="two images or more"):
            LinearAttacker(some.images[:count], noise)

    def test_the_published_one(self, some):
        network = attackers.published_network()
        assert sum(value.numel() for value in network.parameters()) == 608 + 18496 + 65
        assert attackers.attacked(network, some.kspace[:2]).shape == (2, 28, 28)

    def test_the_published_one_sees_no_more_than_the_mean_image_of_nothing(self, some):
        """A shift-invariant network learns hardly more than a constant from random masks."""
        sampler = Nothing((28, 28), 2.0, "uniform2d")
        run = AttackRun(most_epochs=15, learning_rate=1e-2)
        network = attackers.train_attacker(sampler, 2.0, some, some.first(40), run, seed=0)
        images = attackers.attacked(network, torch.zeros_like(some.kspace))
        constant = some.images.mean().expand_as(some.images)
        found = [attackers.attack_psnr(one, some.images).mean() for one in (images, constant)]
        assert found[0] > found[1] - 0.1
        assert found[0] < attackers.mean_psnr(some.images, some.images).mean() + 0.1

    def test_training_ends_where_the_error_stops_falling(self, some):
        sampler = FixedMasks((28, 28), 2.0, "variable_density2d")
        errors = []
        for epochs in (1, 2):
            run = AttackRun(most_epochs=epochs)
            network = attackers.train_attacker(sampler, 2.0, some, some.first(40), run, seed=0)
            masks = digits.draw_masks(sampler, 2.0, 40, attackers._VALIDATION_MASKS)
            seen = some.first(40).zero_filled(masks)
            errors.append(attackers._error(network, seen, some.first(40)))
        assert errors[1] <= errors[0]
        # At a rate of nothing the first epoch is no better than the start, and the last.
        run = AttackRun(most_epochs=10**9, learning_rate=0.0)
        attackers.train_attacker(sampler, 2.0, some.first(40), some.first(40), run, seed=0)

    def test_a_unet_sees_the_mean_image_of_nothing(self):
        truth = torch.zeros(8, 16, 16)
        for number, image in enumerate(truth):
            image[3 : 9 + number % 3, 4:11] = 1
            image[10:14, 6 : 9 + number % 4] = 0.5
        torch.manual_seed(0)
        network = UNetReconstructor(width=8, depth=2)
        ones = torch.ones(1, 1, 16, 16, dtype=torch.complex64)
        mask = torch.zeros(1, 1, 16, 16, dtype=torch.bool)
        mask[..., 0, 0] = True  # operators have a sample at least: of it nothing is said
        operator = CartesianSense(mask, ones)
        optimizer = torch.optim.Adam(network.parameters(), 1e-2)
        mean = truth.mean(dim=0, keepdim=True)
        for _ in range(120):
            optimizer.zero_grad()
            seen = network(operator, torch.zeros_like(ones)).images
            (seen - truth).abs().square().mean().backward()
            optimizer.step()
        with torch.no_grad():
            seen = network(operator, torch.zeros_like(ones)).images.expand(8, -1, -1)
        floor = psnr(mean.expand_as(truth), truth).mean()
        assert abs(float(psnr(seen, truth).mean() - floor)) < 0.5


def start_only(script, options, folder, steps, *, test_only):
    """Write what training would start from."""
    command = [*options, "--output_dir", str(folder), "--max_train_steps", str(steps)]
    if script == "train_task.py":
        pipe: Any = tasks.starting_point(tasks.parse_args(command))
    else:
        pipe = starting_point(reconstructor.parse_args(command))
    pipe.save_pretrained(folder / "pipeline")
    return True


class TestTables:
    """Each table at its smallest size."""

    def test_the_weight_that_is_chosen(self):
        def found(*rows: tuple[float, float, float]) -> list[dict[str, float]]:
            return [dict(zip(("entropy_weight", "task", "psnr"), row, strict=True)) for row in rows]

        plain, weak, strong = (0.0, 0.9, 20.0), (0.1, 0.897, 18.0), (0.3, 0.88, 12.0)
        assert privacy.choose_weight(found(plain, weak, strong), 0.005) == 0.1
        assert privacy.choose_weight(found(plain, weak, strong), 0.05) == 0.3
        assert privacy.choose_weight(found(plain, weak, strong), 0.001) == 0.1

    def test_an_estimate_lies_in_its_interval(self):
        values = torch.randn(200, generator=seeded(0)).numpy()
        found = privacy.mean_of(values)
        assert found["low"] < found["mean"] < found["high"]
        assert found["high"] - found["low"] == pytest.approx(2 * 1.96 / 200**0.5, rel=0.25)
        assert (
            privacy_page.shown({"mean": 1.234, "low": -1, "high": 2}, 1, "+") == "+1.2 [-1.0, +2.0]"
        )

    def test_digits(self, tmp_path, monkeypatch):
        monkeypatch.setattr(privacy, "AttackRun", lambda: AttackRun(most_epochs=1))
        command = ["--tables", "privacy_digits", "--output_dir", str(tmp_path), "--digits", "64"]
        command += ["--runs", str(tmp_path / "runs")]
        command += ["--test_digits", "12", "--digit_epochs", "1", "--attack_digits", "8"]
        command += ["--digit_accelerations", "8", "--digit_weights", "0.1", "--seeds", "0", "1"]
        study.main(command)
        found = json.loads((tmp_path / "tasks_privacy_digits.json").read_text())["results"]
        assert [row["title"] for row in found["rows"]] == 2 * [*privacy.FIXED, *["InfoMRI"] * 2]
        plain, suppressed = found["rows"][3:5]
        difference = suppressed["strongest"]["mean"] - plain["strongest"]["mean"]
        assert suppressed["less_plain"]["strongest"]["mean"] == pytest.approx(difference)
        for row in found["rows"]:
            best = max(one["mean"] for one in row["psnr"].values())
            assert row["strongest"]["mean"] == best
        text = (tmp_path / "tasks_privacy_digits.md").read_text()
        assert "InfoMRI, β = -0.1" in text
        assert "β = -0.1 at ×8" in text
        assert "|β|" not in text  # a bar would end the cell of a table
        # Results are stored; nothing is trained again.
        monkeypatch.setattr(privacy, "train_digits", lambda *_, **__: pytest.fail("trained"))
        study.main(command)
        assert (tmp_path / "tasks_privacy_digits.md").read_text() == text
        with pytest.raises(InputError, match="--runs"):
            study.main([*command, "--digit_epochs", "2"])

    def test_digits_are_not_kept(self, tmp_path):
        study.main(["--tables", "privacy_digits", "--output_dir", str(tmp_path), "--test_only"])
        assert not list(tmp_path.iterdir())

    def test_the_prior_sees_the_first_knees(self, pipe):
        knees = knee_runs.draw_knees(2, 32, 0)
        assert torch.equal(knees.images.real, knees.images.abs())
        mask = torch.ones(2, 1, 32, 32, dtype=torch.bool)
        images = knee_runs.attack_by_prior(pipe, knees, mask, 1, 0)
        assert images.shape == (1, 32, 32)
        assert float(psnr(images, knees.images[:1])) > 20  # everything was measured

    def test_knees(self, bank, pipe, tmp_path, monkeypatch):
        monkeypatch.setattr(knee_runs, "train_run", start_only)
        monkeypatch.setattr(frontier, "load_prior", lambda: pipe)
        seen = "attack_by_prior"
        monkeypatch.setattr(frontier, seen, lambda _, knees, *__: 0.9 * knees.images[:1])
        monkeypatch.setattr(frontier, "OTHERS", (frontier.UNIFORM,))
        command = ["--knees", str(bank), "--runs", str(tmp_path / "runs")]
        command += ["--output_dir", str(tmp_path), "--knee_resolution", "32", "--knee_scans", "4"]
        command += ["--knee_steps", "1", "--attack_steps", "1", "--test_knees", "6"]
        command += ["--prior_knees", "1", "--knee_weights", "0", "0.1"]
        command += ["--attackers", "U-Net", frontier.PRIOR]
        study.main([*command, "--tables", "frontier"])
        found = json.loads((tmp_path / "tasks_frontier.json").read_text())["results"]
        titles = ["uniform random", "InfoMRI, β = 0", "InfoMRI, β = -0.1"]
        assert [row["title"] for row in found["rows"]] == titles
        assert "less_plain" not in found["rows"][1]
        for row in found["rows"]:
            assert set(row["psnr"]) == {"U-Net", frontier.PRIOR}
        for name in ("frontier", "frontier_images"):
            assert (tmp_path / f"tasks_{name}.png").stat().st_size > 5_000
            assert f"(tasks_{name}.png)" in (tmp_path / "tasks_frontier.md").read_text()
        folders = {path.name for path in (tmp_path / "runs").iterdir()}
        assert "knees_infomri_beta_0_1_x8_u_net" in folders
        study.main([*command, "--tables", "privacy_knees"])
        rows = json.loads((tmp_path / "tasks_privacy_knees.json").read_text())["results"]["rows"]
        assert [row["entropy_weight"] for row in rows] == [0.0, 0.0, found["chosen"]]
        assert "png" not in (tmp_path / "tasks_privacy_knees.md").read_text()

    def test_knees_that_are_not_trained_give_no_table(self, bank, tmp_path):
        command = ["--knees", str(bank), "--runs", str(tmp_path / "runs"), "--test_only"]
        study.main([*command, "--output_dir", str(tmp_path), "--tables", "frontier"])
        assert not list(tmp_path.glob("*.json"))

    def test_knees_need_a_bank_and_a_weight_of_0(self, bank, tmp_path):
        command = ["--runs", str(tmp_path / "runs"), "--output_dir", str(tmp_path)]
        command += ["--tables", "frontier", "--test_only"]
        with pytest.raises(InputError, match="--knees"):
            study.main(command)
        with pytest.raises(InputError, match="--knee_weights"):
            study.main([*command, "--knees", str(bank), "--knee_weights", "0.1", "0.3"])

    def test_every_entry_is_what_the_scripts_take(self, bank, tmp_path, monkeypatch):
        args = study.parse_args(["--knees", str(bank), "--runs", str(tmp_path)])
        commands = []

        def note(script, options, folder, steps, *, test_only):
            assert folder.name.isascii()
            commands.append((script, [*options, "--output_dir", str(folder)]))
            return True

        monkeypatch.setattr(knee_runs, "train_run", note)
        for entry in (*knee_runs.OTHERS, knee_runs.generator_entry(0.1)):
            task = knee_runs.trained_task(entry, args)
            assert task is not None
            for attacker in knee_runs.ATTACKERS:
                knee_runs.trained_attacker(task, attacker, args)
        for script, options in commands:
            command = [*options, "--max_train_steps", "1"]
            if script == "train_task.py":
                sampler = tasks.starting_point(tasks.parse_args(command)).sampler
                ratio = float(sampler(8.0, 1, seeded(0)).float().mean())
                assert ratio == pytest.approx(1 / 8, abs=0.011)
            else:
                starting_point(reconstructor.parse_args(command))


def test_tables_are_those_of_the_study():
    assert {"privacy_digits", "privacy_knees", "frontier"} <= set(tables.TABLES)
