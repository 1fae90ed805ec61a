"""Building blocks of solvers (steps, noise, traits), and solvers written by users."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from gaussian import ALPHAS, Untouched, complex_noise, random_prior, seeded, two_lines
from narrow import tensor

from ctxrecon.errors import InputError
from ctxrecon.fourier import channels_to_complex, fft2c
from ctxrecon.inference.noise import check_noise, with_noise
from ctxrecon.inference.warm_start import check_warm_start, choose_solver
from ctxrecon.linalg import conjugate_gradient
from ctxrecon.operators import Identity
from ctxrecon.solvers import (
    DAPS,
    DDNM,
    DDS,
    DDS3D,
    SOLVERS,
    DiffPIR,
    DiffusionSolver,
    Noise,
    PiGDM,
    PnPADMM,
    PnPHQS,
    PosteriorDDS,
    REDDiff,
    ddim_sample,
    make_solver,
    on_step_end,
    schedule,
)

NY, NX = 6, 5
TIMESTEPS = [960, 450, 60]


@pytest.fixture
def prior(generator):
    return random_prior((NY, NX), generator)


@pytest.fixture
def multicoil(generator):
    return two_lines((NY, NX), generator)


def steps_of(timesteps=TIMESTEPS, **call):
    y = torch.zeros(2, NY, NX, dtype=torch.complex64)
    return schedule(Untouched(), Identity((1, NY, NX)), y, timesteps, **call)


# Steps and noise.


def test_steps_know_their_neighbors():
    steps, _ = steps_of()
    assert [step.index for step in steps] == [0, 1, 2]
    assert [step.t for step in steps] == TIMESTEPS
    assert [step.next_t for step in steps] == [450, 60, None]
    assert [step.is_first for step in steps] == [True, False, False]
    assert [step.is_last for step in steps] == [False, False, True]
    assert [step.alpha_bar for step in steps] == [float(ALPHAS[t]) for t in TIMESTEPS]
    assert [step.alpha_bar_prev for step in steps] == [float(ALPHAS[t]) for t in (450, 60)] + [1.0]
    (only,), _ = steps_of([7])
    assert only.is_first
    assert only.is_last


def test_the_noise_of_a_step_is_not_the_noise_that_ddim_draws():
    step = steps_of()[0][1]
    a, b = step.alpha_bar, step.alpha_bar_prev
    assert step.sigma == pytest.approx(math.sqrt((1 - a) / a))
    expected = math.sqrt((1 - b) / (1 - a)) * math.sqrt(1 - a / b)
    assert step.ddim_sigma(1.0) == pytest.approx(expected)
    assert step.ddim_sigma(0.3) == pytest.approx(0.3 * expected)
    assert steps_of()[0][-1].ddim_sigma(1.0) == 0


def test_noise_is_each_samples_own_and_as_strong_as_asked():
    _, noise = steps_of(generator=[seeded(1), seeded(2)])
    drawn = noise()
    alone = Noise((1, 2, NY, NX), torch.device("cpu"), seeded(2))()
    assert torch.equal(drawn[1], alone[0])
    _, again = steps_of(generator=[seeded(1), seeded(2)])
    assert torch.equal(again(0.0), torch.tensor(0.0))  # nothing is drawn
    assert torch.equal(again(torch.zeros(2)), torch.tensor(0.0))
    assert torch.equal(
        again(torch.tensor([2.0, 0.0])), torch.stack([2 * drawn[0], torch.zeros(2, NY, NX)])
    )


def test_it_starts_from_latents_or_draws_them():
    latents = torch.randn(2, 2, NY, NX, dtype=torch.float64, generator=seeded(0))
    _, noise = steps_of(latents=latents)
    assert torch.equal(noise.initial(), latents.float())
    _, noise = steps_of(generator=seeded(3))
    assert torch.equal(noise.initial(), torch.randn(2, 2, NY, NX, generator=seeded(3)))


def test_callbacks_may_replace_or_leave():
    step = steps_of()[0][2]
    x, image, seen = torch.ones(1, 2, 3, 3), torch.zeros(1, 3, 3), []
    assert on_step_end(None, step, x, image) is x
    assert on_step_end(lambda *seen_now: seen.append(seen_now), step, x, image) is x
    assert seen == [(2, 60, x, image)]
    assert on_step_end(lambda *_: 2 * x, step, x, image).equal(2 * x)


def test_dds_is_ddim_with_corrected_images(prior, multicoil, generator):
    y = multicoil(complex_noise((2, NY, NX), generator))
    system = 1 + 5.0 * multicoil.gram

    def correct(x0):
        rhs = x0 + 5.0 * multicoil.H(y)
        return conjugate_gradient(system, rhs, x0=x0, num_iterations=5, quadratic=system.quadratic)

    got = DDS(eta=0.8)(prior, multicoil, y, timesteps=TIMESTEPS, generator=seeded(1))
    expected = ddim_sample(
        prior, (2, NY, NX), timesteps=TIMESTEPS, eta=0.8, generator=seeded(1), correct=correct
    )
    assert torch.equal(got, expected)


def test_what_draws_nothing_leaves_the_generator_alone(prior, multicoil, generator):
    y = multicoil(complex_noise((1, NY, NX), generator))
    source = seeded(5)
    before = source.get_state()
    for solver in (PnPADMM(), PnPHQS()):
        solver(prior, multicoil, y, timesteps=TIMESTEPS, generator=source)
    assert torch.equal(source.get_state(), before)


# Traits.


def test_traits_of_the_solvers():
    assert all(issubclass(kind, DiffusionSolver) for kind in SOLVERS.values())

    kinds = SOLVERS.values()
    assert {kind for kind in kinds if kind.deterministic} == {PnPADMM, PnPHQS}
    assert {kind for kind in kinds if kind.starts_from_data} == {PnPADMM, PnPHQS, REDDiff}
    assert {kind for kind in kinds if kind.couples_batch} == {DDS3D}
    takes_noise = {kind for kind in kinds if kind.default_noise_std is not None}
    assert takes_noise == {DDNM, DiffPIR, PiGDM, DAPS, PnPADMM, PnPHQS, PosteriorDDS}


@pytest.mark.parametrize("kind", [DDNM, DiffPIR, PiGDM, DAPS, PnPADMM, PnPHQS])
def test_with_noise_is_a_copy(kind):
    solver = kind(cg_iterations=3)
    changed = solver.with_noise(torch.tensor([0.1, 0.2]))
    assert type(changed) is kind
    assert changed.cg_iterations == 3
    assert torch.equal(tensor(changed.noise_std), torch.tensor([0.1, 0.2]))
    assert solver.noise_std is None
    assert with_noise(solver, None) is solver
    with pytest.raises(InputError, match="noise_std"):
        solver.with_noise(-1.0)


def test_solvers_without_noise_refuse_a_level():
    assert DDS().noise_std is None
    with pytest.raises(InputError, match="noise_std"):
        DDS().with_noise(0.1)
    assert with_noise(DDS(), torch.ones(1)) == DDS()
    with pytest.raises(InputError, match="eta above 0"):
        DDNM(eta=0.0).with_noise(0.1)
    with pytest.raises(InputError, match="takes no noise level"):
        check_noise(0.1, 1, DDS())
    check_noise(0.1, 1, DDS(), "pnp_admm")
    check_noise(0.1, 1, DDNM())


# A user's own.


def plain(denoiser, operator, y, *, timesteps, generator, latents, callback):
    """DDIM with nothing but the call."""
    _, ny, nx = operator.domain_shape
    return ddim_sample(
        denoiser,
        (len(y), ny, nx),
        timesteps=timesteps,
        eta=0.0,
        generator=generator,
        latents=latents,
        callback=callback,
    )


loop: Any = plain  # which fits by its call, not by its declared type


class Projected(DiffusionSolver):
    """Nothing but a loop; every trait has its default."""

    def __call__(
        self, denoiser, operator, y, *, timesteps, generator=None, latents=None, callback=None
    ):
        steps, noise = schedule(denoiser, operator, y, timesteps, generator, latents)
        x_t = noise.initial()
        for step in steps:
            x0_hat, eps = denoiser(x_t, step.t)
            image = channels_to_complex(x0_hat)
            x_t = step.mean(image, eps, 0.0)
            x_t = on_step_end(callback, step, x_t, image)
        return image


class Noisy(Projected):
    """Takes a noise level, and is no dataclass."""

    default_noise_std: ClassVar[float] = 0.05

    def __init__(self, weight):
        self.weight = weight


def test_a_derived_solver_needs_a_loop_only(prior, multicoil, generator):
    solver = make_solver(Projected())
    assert isinstance(solver, Projected)
    assert (solver.deterministic, solver.starts_from_data, solver.couples_batch) == (False,) * 3
    assert solver.default_noise_std is None
    assert solver.name == "Projected"
    y = multicoil(complex_noise((1, NY, NX), generator))
    got = solver(prior, multicoil, y, timesteps=TIMESTEPS, generator=seeded(1))
    expected = make_solver(loop)(prior, multicoil, y, timesteps=TIMESTEPS, generator=seeded(1))
    assert torch.equal(got, expected)
    with pytest.raises(InputError, match="does not fit"):
        solver(Untouched(), multicoil, y[:, :1], timesteps=TIMESTEPS)


def test_a_derived_solver_that_is_no_dataclass_takes_noise():
    solver = Noisy(weight=3)
    changed = with_noise(solver, torch.tensor([0.2]))
    assert torch.equal(tensor(changed.noise_std), torch.tensor([0.2]))
    assert isinstance(changed, Noisy)
    assert changed.weight == 3
    assert solver.noise_std is None


def test_whatever_has_the_call_is_a_solver_with_the_defaults(pipe, generator):
    class Keeps:
        deterministic = True  # says nothing unless it is derived

        def __call__(self, denoiser, operator, y, **call):
            self.y = y
            return plain(denoiser, operator, y, **call)

    keeps = Keeps()
    image = torch.zeros(1, 1, 16, 16, dtype=torch.complex64)
    image[..., 4:12, 5:11] = 1 + 0.01 * complex_noise((8, 6), generator)
    kspace = fft2c(image)
    mask = torch.ones(1, 1, 16, 16, dtype=torch.bool)
    solvers: list[tuple[Any, str]] = [
        (plain, "plain"),
        (keeps, "Keeps"),
        (functools.partial(plain), "partial"),
    ]
    for given, name in solvers:
        solver = make_solver(given)
        assert isinstance(solver, DiffusionSolver)
        assert solver.name == name
        assert (solver.deterministic, solver.starts_from_data, solver.couples_batch) == (False,) * 3
        assert solver.default_noise_std is None
        check_warm_start("cg_sense", 0.5, solver)
        assert with_noise(solver, torch.ones(1)) is solver
        with pytest.raises(InputError, match=f"{name} takes no noise level"):
            check_noise(0.1, 1, solver)
        output = pipe(kspace, mask, solver=given, num_inference_steps=2, generator=seeded(0))
        assert output.images.shape == (1, 16, 16)
    assert keeps.y.shape == (1, 1, 16, 16)
    chosen, _ = choose_solver(loop, None, 1)
    assert chosen.name == "plain"
    chosen, _ = choose_solver("dds:data_weight=7", None, 1)
    assert isinstance(chosen, DDS)
    assert chosen.data_weight == 7
    with pytest.raises(InputError, match="made already"):
        make_solver(loop, eta=0.1)


@pytest.mark.parametrize("misfit", [len, lambda y: y, lambda denoiser, operator, y: y])
def test_misfits_fail_before_the_loop(misfit, pipe):
    with pytest.raises(InputError, match=r"solver\(denoiser"):
        make_solver(misfit)
    kspace = torch.ones(1, 1, 16, 16, dtype=torch.complex64)
    with pytest.raises(InputError, match="cannot be called as"):
        pipe(kspace, kspace[:, :1].real > 0, solver=misfit)


def test_derived_classes_that_do_not_fit():
    class Forgetful(DiffusionSolver):
        pass

    with pytest.raises(TypeError, match="abstract"):
        Forgetful()  # type: ignore[abstract]

    class OtherCall(DiffusionSolver):
        def __call__(self, y):  # type: ignore[override]
            return y

    with pytest.raises(InputError, match="OtherCall"):
        make_solver(OtherCall())  # type: ignore[arg-type]
    with pytest.raises(InputError, match="default_noise_std"):

        @dataclass(frozen=True)
        class Silent(Projected):
            noise_std: float | None = None
