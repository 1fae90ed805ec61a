"""Plan of the study: pools of slices, masks, prompts and experiments."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.metadata.edits import (
    ALL,
    ALL_WRONG_PATHOLOGY,
    NO_CONTRAST,
    NO_DEMOGRAPHICS,
    NO_PARAMETERS,
    NO_SLICE,
    PATHOLOGY,
    WRONG_CONTRAST,
    WRONG_FIELD,
    WRONG_PATHOLOGY,
    WRONG_TIMES,
)

MASKS = {
    "uniform1d ×4": ("uniform1d", 4.0),
    "uniform1d ×8": ("uniform1d", 8.0),
    "Poisson ×8": ("poisson_disk2d", 8.0),
    "Poisson ×15": ("poisson_disk2d", 15.0),
}
LADDER_MASKS = {4: "uniform1d ×4", 8: "uniform1d ×8"}
"""Masks of the experiments that remove metadata, by acceleration."""
ABLATION_MASK = LADDER_MASKS[8]
"""Mask of the experiments with a single mask."""
LADDERS = ("removal", "demographics", "pathology")
"""Experiments over both of these masks and several γ."""
MAX_SCANS = 100_000
"""Largest number of slices in a pool, so that scan numbers of pools do not overlap."""


@dataclass(frozen=True)
class Pool:
    """Source of slices.

    Attributes:
        name: Name in tables.
        anatomy: ``"knee"``, ``"brain"``, or empty if it varies between slices.
        first: Number of its first scan, beyond those of ``benchmarks.phantom``.
        with_finding: Every slice is procedural and shows a pathology.
        mixed: Every second slice is from a label volume, if there are any.
        known_person: Every slice shows a person of known age and sex, which its prompt states.
    """

    name: str
    anatomy: str
    first: int
    with_finding: bool = False
    mixed: bool = False
    known_person: bool = False


KNEE = Pool("knee", "knee", MAX_SCANS)
BRAIN = Pool("brain", "brain", 2 * MAX_SCANS, mixed=True)
KNEE_FINDING = Pool("knee with a finding", "knee", 3 * MAX_SCANS, True)
BRAIN_FINDING = Pool("brain with a finding", "brain", 4 * MAX_SCANS, True)
# Numbers from 5 MAX_SCANS belong to the images drawn from prompts.
KNEE_PERSON = Pool("knee of known age and sex", "knee", 6 * MAX_SCANS, known_person=True)
BRAIN_PERSON = Pool("brain of known age and sex", "brain", 7 * MAX_SCANS, known_person=True)
PEOPLE = Pool("real people", "", 8 * MAX_SCANS)


@dataclass(frozen=True)
class Condition:
    """One way to prompt the prior, or the baseline without a prior.

    Attributes:
        edit: Edit of the prompt, a key of :data:`benchmarks.metadata.edits.EDITS`.
        gamma: Guidance scale γ, 0 for no prompt; ``None`` for the baseline.
        samples: Number of posterior samples.
        prior: Name of another prior than the subject of the study.
    """

    edit: str
    gamma: float | None
    samples: int
    prior: str = ""

    @property
    def name(self) -> str:
        """Name in tables and rows."""
        if self.gamma is None:
            return "L1-wavelet"
        words = [self.prior] * bool(self.prior) + [self.edit] * bool(self.gamma)
        words.append(f"γ = {self.gamma:g}")
        return ", ".join([*words, *[f"{self.samples} samples"] * (self.samples > 1)])


L1_WAVELET = Condition("", None, 1)


@dataclass(frozen=True)
class Experiment:
    """Combination of pools, masks and methods, all measured with each other."""

    pools: tuple[Pool, ...]
    masks: tuple[str, ...]
    methods: tuple[Condition, ...]

    @property
    def edits(self) -> list[str]:
        """Distinct edits of the prompts."""
        return list(dict.fromkeys(method.edit for method in self.methods if method.gamma))

    @property
    def gammas(self) -> list[float]:
        """Guidance scales of the methods with a prompt, ascending."""
        return sorted({method.gamma for method in self.methods if method.gamma})

    def method(self, edit: str, gamma: float) -> Condition:
        """Return the method of an edit and γ; γ = 0 has no prompt to edit."""
        return next(
            method
            for method in self.methods
            if method.gamma == gamma and (not gamma or method.edit == edit)
        )


def planned_experiments(
    gammas: Sequence[float],
    gamma: float,
    samples: int,
    *,
    prompt_gammas: Sequence[float],
    accelerations: Sequence[int] = tuple(LADDER_MASKS),
    others: Sequence[str] = (),
) -> dict[str, Experiment]:
    """Return the experiments by name.

    Args:
        gammas: Guidance scales γ of ``guidance`` and ``people``.
        gamma: Guidance scale γ of the experiments with a single one.
        samples: Posterior samples; ``wrong_prompt`` uses at least two, to have a spread.
        prompt_gammas: Guidance scales γ of :data:`LADDERS`.
        accelerations: Accelerations of :data:`LADDERS`.
        others: Names of further priors in ``guidance`` and ``people``, used without a prompt.
    """

    def prompts(scales: Iterable[float], count: int, *edits: str) -> tuple[Condition, ...]:
        with_prompt = [Condition(edit, scale, count) for scale in scales for edit in edits]
        return (*with_prompt, Condition(ALL, 0.0, count))

    def ladder(pools: tuple[Pool, ...], *edits: str) -> Experiment:
        masks = tuple(LADDER_MASKS[number] for number in accelerations)
        return Experiment(pools, masks, prompts(prompt_gammas, samples, *edits))

    def single(count: int, *edits: str) -> Experiment:
        return Experiment(phantoms, (ABLATION_MASK,), prompts((gamma,), count, *edits))

    phantoms = (KNEE, BRAIN)
    beside = [Condition(ALL, 0.0, samples, name) for name in others]
    guided = (L1_WAVELET, *(Condition(ALL, each, samples) for each in gammas), *beside)
    return {
        "guidance": Experiment(phantoms, tuple(MASKS), guided),
        "people": Experiment((PEOPLE,), tuple(MASKS), guided),
        "removal": ladder(phantoms, ALL, NO_PARAMETERS, NO_CONTRAST, NO_SLICE),
        "demographics": ladder((KNEE_PERSON, BRAIN_PERSON), ALL, NO_DEMOGRAPHICS),
        "pathology": ladder(
            (KNEE_FINDING, BRAIN_FINDING), ALL, ALL_WRONG_PATHOLOGY, PATHOLOGY, WRONG_PATHOLOGY
        ),
        "field_strength": single(samples, ALL, WRONG_FIELD),
        "wrong_prompt": single(max(samples, 2), ALL, WRONG_TIMES, WRONG_CONTRAST),
    }


def cells(experiment: Experiment) -> list[tuple[Pool, str, Condition]]:
    """Return every combination of pool, mask and method of an experiment."""
    return [
        (pool, mask, method)
        for pool in experiment.pools
        for mask in experiment.masks
        for method in experiment.methods
    ]
