"""Who a phantom is of: age and sex, and what they do to an anatomy and its tissues.

Each effect has the slope of the literature that its docstring names; where the literature has a
direction but no number that fits, the docstring says that the size is an assumption. Effects are
stated around the average patient, so that a population of persons looks like one without them.
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
        age: in years, 18 to 110.
        sex: ``"F"`` or ``"M"``.

    Raises:
        InputError: another age or sex.
    """

    age: float
    sex: str

    def __post_init__(self) -> None:
        """Check both."""
        if not _YOUNGEST <= self.age <= 110:
            raise InputError(f"expected an adult's age of 18 to 110 years, got {self.age:g}")
        if self.sex not in ("F", "M"):
            raise InputError(f"expected the sex of a phantom as 'F' or 'M', got {self.sex!r}")

    @property
    def is_woman(self) -> bool:
        """Whether the sex is ``"F"``."""
        return self.sex == "F"


def draw_person(rng: np.random.Generator, anatomy: str) -> Person:
    """Draw a patient of an MRI department, in whole years.

    fastMRI does not publish ages and sexes. The 1370 patients of MRNet, knees from another
    department, are 38 years old on average and 41.5 % of them women (Bien et al., PLoS Med
    15:e1002699, 2018); children, which the phantom has not, are among them, so its knees are given
    42 ± 15 years. Brains are given 52 ± 15 years and equal shares of women and men, an assumption.
    Ages are beta-distributed from 18 to 90 years.

    Args:
        rng: draws both.
        anatomy: ``"brain"`` or ``"knee"``.
    """
    part = rng.beta(*_AGES[anatomy])
    age = float(round(_YOUNGEST + (_OLDEST - _YOUNGEST) * part))
    return Person(age, "F" if rng.random() < _SHARE_OF_WOMEN[anatomy] else "M")


def relative_age(person: Person, anatomy: str) -> float:
    """Age in standard deviations from the mean of :func:`draw_person`, at most 2.5 either way."""
    a, b = _AGES[anatomy]
    mean = _YOUNGEST + (_OLDEST - _YOUNGEST) * a / (a + b)
    deviation = (_OLDEST - _YOUNGEST) / (a + b) * math.sqrt(a * b / (a + b + 1))
    return float(np.clip((person.age - mean) / deviation, -_FURTHEST, _FURTHEST))


def frequency(person: Person, anatomy: str, strength: float) -> float:
    """How often a finding is seen at this age, by its average over all ages.

    ``exp(s z − s²/2)`` with the relative age ``z`` grows exponentially with age and is 1 on average
    over ages that are normally distributed.

    Args:
        person: whose age.
        anatomy: of the patients.
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
    """A beta-distributed value whose rank is correlated with age (a Gaussian copula).

    Over the population of :func:`draw_person` it has the beta distribution itself.

    Args:
        rng: draws what age does not decide.
        shape: of the beta distribution.
        person: whose age.
        anatomy: of the patients.
        correlation: of the normal scores of value and age.
    """
    from scipy.special import betaincinv, ndtr

    own = math.sqrt(1 - correlation**2) * rng.standard_normal()
    score = correlation * relative_age(person, anatomy) + own
    return float(betaincinv(*shape, ndtr(score)))
