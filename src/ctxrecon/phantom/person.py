"""Age and sex of a phantom's person, and their effects on anatomy and tissues.

Each effect has the slope of the literature cited in its docstring. Where the literature has a
direction but no suitable number, the docstring states that the size is an assumption. Effects are
relative to the average patient, so that a population of persons looks like one without them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ctxrecon.errors import InputError

_YOUNGEST, _OLDEST = 18.0, 90.0
_AGES = {"brain": (2.2, 2.4), "knee": (1.3, 2.6)}
_SHARE_OF_WOMEN = {"brain": 0.5, "knee": 0.415}
_FURTHEST = 2.5


@dataclass(frozen=True)
class Person:
    """An adult.

    Attributes:
        age: Age in years, 18 to 110.
        sex: ``"F"`` or ``"M"``.

    Example:
        >>> from ctxrecon.phantom import Person
        >>> Person(age=42, sex="F").is_woman
        True

    Raises:
        InputError: If age or sex is not one of these.
    """

    age: float
    sex: str

    def __post_init__(self) -> None:
        """Validate age and sex."""
        if not _YOUNGEST <= self.age <= 110:
            raise InputError(f"expected an adult's age of 18 to 110 years, got {self.age:g}")
        if self.sex not in ("F", "M"):
            raise InputError(f"expected the sex of a phantom as 'F' or 'M', got {self.sex!r}")

    @property
    def is_woman(self) -> bool:
        """Whether the sex is ``"F"``."""
        return self.sex == "F"


def draw_person(rng: np.random.Generator, anatomy: str) -> Person:
    """Draw a patient of an MRI department, with an age in whole years.

    fastMRI does not publish ages and sexes. The 1370 patients of MRNet, knees from another
    department, are 38 years old on average, and 41.5 % of them are women (Bien et al., PLoS Med
    15:e1002699, 2018). They include children, which the phantom does not model, so its knees are
    42 ± 15 years old. For brains, 52 ± 15 years and equal numbers of women and men are assumed.
    Ages have a beta distribution from 18 to 90 years.

    Args:
        rng: Random generator.
        anatomy: ``"brain"`` or ``"knee"``.
    """
    part = rng.beta(*_AGES[anatomy])
    age = float(round(_YOUNGEST + (_OLDEST - _YOUNGEST) * part))
    return Person(age, "F" if rng.random() < _SHARE_OF_WOMEN[anatomy] else "M")


def relative_age(person: Person, anatomy: str) -> float:
    """Return the age in standard deviations from the mean of :func:`draw_person`, up to ±2.5."""
    a, b = _AGES[anatomy]
    mean = _YOUNGEST + (_OLDEST - _YOUNGEST) * a / (a + b)
    deviation = (_OLDEST - _YOUNGEST) / (a + b) * math.sqrt(a * b / (a + b + 1))
    return float(np.clip((person.age - mean) / deviation, -_FURTHEST, _FURTHEST))


def frequency(person: Person, anatomy: str, strength: float) -> float:
    """Return the frequency of a finding at this age, relative to its average over all ages.

    ``exp(s z − s²/2)`` with the relative age ``z`` grows exponentially with age and averages to 1
    over normally distributed ages.

    Args:
        person: Person with an age.
        anatomy: Anatomy of the patients, ``"brain"`` or ``"knee"``.
        strength: ``s``, the logarithm of the factor by which one standard deviation of age raises
            the frequency.
    """
    return math.exp(strength * relative_age(person, anatomy) - strength**2 / 2)


def aged_beta(
    rng: np.random.Generator,
    shape: tuple[float, float],
    person: Person,
    anatomy: str,
    correlation: float,
) -> float:
    """Draw a beta-distributed value whose rank is correlated with age (a Gaussian copula).

    Over the population of :func:`draw_person`, whose ages are whole years, the values have nearly
    this beta distribution.

    Args:
        rng: Random generator of the part that is independent of age.
        shape: Parameters of the beta distribution.
        person: Person with an age.
        anatomy: Anatomy of the patients, ``"brain"`` or ``"knee"``.
        correlation: Correlation of the normal scores of value and age.
    """
    from scipy.special import betaincinv, ndtr

    own = math.sqrt(1 - correlation**2) * rng.standard_normal()
    score = correlation * relative_age(person, anatomy) + own
    return float(betaincinv(*shape, ndtr(score)))
