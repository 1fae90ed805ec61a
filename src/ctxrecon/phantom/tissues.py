"""Tissues of the digital phantom and their relaxation parameters.

Times are literature values at 1.5 T and 3 T, in ms, rounded; proton density is relative to water.
Sources: Stanisz et al., MRM 54:507 (2005) for white and gray matter, muscle, cartilage, marrow and
blood; Bojorquez et al., MRI 35:69 (2017), and Wansapura et al., JMRI 9:531 (1999), for the brain;
Gold et al., AJR 183:343 (2004), for the knee; Du & Bydder, NMR Biomed 26:489 (2013), for bone,
meniscus and ligament; Peters et al., MRI 25:748 (2007), for T2* in the brain. Lesions have the
relaxation times of water-rich tissue between their host and fluid, which makes them bright on T2
and dark on T1. The T2 of fat is the longer one observed in a train of refocused echoes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from ctxrecon.errors import InputError
from ctxrecon.phantom.person import Person


class Tissue(IntEnum):
    """Label of each tissue in an anatomy's label map."""

    AIR = 0
    WHITE_MATTER = 1
    GRAY_MATTER = 2
    DEEP_GRAY_MATTER = 3
    CSF = 4
    FAT = 5
    MUSCLE = 6
    SKIN = 7
    CORTICAL_BONE = 8
    MARROW = 9
    VITREOUS = 10
    BLOOD = 11
    CARTILAGE = 12
    MENISCUS = 13
    LIGAMENT = 14
    SYNOVIAL_FLUID = 15
    WHITE_MATTER_LESION = 16
    MASS = 17
    BONE_EDEMA = 18
    MENISCUS_TEAR = 19
    CARTILAGE_DEFECT = 20
    INFARCT = 21


# T1 at 1.5 T, T1 at 3 T, T2 at 1.5 T, T2 at 3 T, T2* at 3 T, proton density, fat fraction,
# uptake of contrast agent relative to blood, texture (relative standard deviation)
_TABLE: dict[Tissue, tuple[float, ...]] = {
    Tissue.AIR: (1000, 1000, 50, 50, 10, 0.0, 0.0, 0.0, 0.0),
    Tissue.WHITE_MATTER: (640, 850, 78, 72, 48, 0.70, 0.0, 0.02, 0.025),
    Tissue.GRAY_MATTER: (1080, 1400, 98, 95, 55, 0.82, 0.0, 0.04, 0.04),
    Tissue.DEEP_GRAY_MATTER: (950, 1200, 86, 78, 44, 0.80, 0.0, 0.04, 0.03),
    Tissue.CSF: (4000, 4200, 1800, 1600, 600, 1.00, 0.0, 0.0, 0.015),
    Tissue.FAT: (290, 370, 130, 120, 35, 0.92, 0.92, 0.0, 0.06),
    Tissue.MUSCLE: (1000, 1400, 42, 38, 28, 0.78, 0.03, 0.10, 0.06),
    Tissue.SKIN: (800, 1050, 45, 40, 22, 0.65, 0.10, 0.25, 0.08),
    Tissue.CORTICAL_BONE: (350, 420, 3.0, 2.5, 0.8, 0.20, 0.0, 0.0, 0.0),
    Tissue.MARROW: (300, 390, 95, 85, 14, 0.80, 0.82, 0.02, 0.07),
    Tissue.VITREOUS: (3800, 4000, 900, 800, 400, 1.00, 0.0, 0.0, 0.01),
    Tissue.BLOOD: (1450, 1800, 120, 70, 30, 0.35, 0.0, 1.00, 0.10),
    Tissue.CARTILAGE: (1050, 1200, 42, 38, 26, 0.78, 0.0, 0.02, 0.06),
    Tissue.MENISCUS: (800, 960, 14, 12, 7, 0.55, 0.0, 0.0, 0.05),
    Tissue.LIGAMENT: (700, 850, 9.0, 8.0, 4, 0.50, 0.0, 0.0, 0.06),
    Tissue.SYNOVIAL_FLUID: (2900, 3600, 800, 700, 300, 1.00, 0.0, 0.05, 0.02),
    Tissue.WHITE_MATTER_LESION: (1150, 1500, 160, 150, 90, 0.86, 0.0, 0.05, 0.05),
    Tissue.MASS: (1400, 1750, 150, 135, 70, 0.88, 0.0, 0.80, 0.08),
    Tissue.BONE_EDEMA: (900, 1150, 110, 100, 22, 0.85, 0.35, 0.15, 0.10),
    Tissue.MENISCUS_TEAR: (1900, 2300, 90, 80, 40, 0.80, 0.0, 0.05, 0.05),
    Tissue.CARTILAGE_DEFECT: (2000, 2500, 250, 220, 100, 0.95, 0.0, 0.05, 0.04),
    Tissue.INFARCT: (2600, 2900, 500, 450, 200, 0.95, 0.0, 0.02, 0.03),
}
NUM_TISSUES = len(Tissue)


@dataclass(frozen=True)
class TissueParameters:
    """Parameters of all tissues of one subject; each array is ``(NUM_TISSUES,)``.

    Attributes:
        t1, t2, t2_star: Relaxation times in ms at ``field_strength``.
        proton_density: Proton density relative to water.
        fat_fraction: Fraction of the signal that is fat.
        uptake: Contrast-agent concentration after injection, relative to blood.
        texture: Relative standard deviation of the signal within the tissue.
        field_strength: Field strength in tesla.
    """

    t1: NDArray[np.float64]
    t2: NDArray[np.float64]
    t2_star: NDArray[np.float64]
    proton_density: NDArray[np.float64]
    fat_fraction: NDArray[np.float64]
    uptake: NDArray[np.float64]
    texture: NDArray[np.float64]
    field_strength: float


def tissue_parameters(
    field_strength: float,
    rng: np.random.Generator | None = None,
    *,
    spread: float = 0.06,
    person: Person | None = None,
) -> TissueParameters:
    """Return tissue parameters at a field strength, with variation between persons.

    Times between and beyond 1.5 T and 3 T are interpolated in the logarithm of the field; the
    T2* decay beyond T2, ``1/T2* − 1/T2``, is proportional to the field.

    Example:
        >>> from ctxrecon.phantom import Tissue, tissue_parameters
        >>> float(tissue_parameters(3.0).t1[Tissue.WHITE_MATTER])
        850.0

    Args:
        field_strength: Field strength in tesla, 0.2 to 7.
        rng: Random generator of each tissue's T1, T2 and proton density, log-normal around the
            mean; ``None`` returns the means.
        spread: Relative standard deviation of the times (half of it for proton density).
        person: Person whose age and sex shift the means; ``None`` uses the table.

    Raises:
        InputError: If the field strength is out of range.
    """
    if not 0.2 <= field_strength <= 7.0:
        raise InputError(f"expected a field strength from 0.2 to 7 tesla, got {field_strength}")
    table = np.array([_TABLE[tissue] for tissue in Tissue], dtype=np.float64)
    weight = np.log(field_strength / 1.5) / np.log(2.0)
    t1 = table[:, 0] * (table[:, 1] / table[:, 0]) ** weight
    t2 = table[:, 2] * (table[:, 3] / table[:, 2]) ** weight
    reversible = (1 / table[:, 4] - 1 / table[:, 3]) * field_strength / 3.0
    density = table[:, 5].copy()
    fat_fraction = table[:, 6].copy()
    if person is not None:
        _age_white_matter(person, t1, t2)
        _age_deep_gray_matter(person, field_strength, t2, reversible)
        t2[Tissue.CARTILAGE] *= _cartilage_t2(person)
        fat_fraction[Tissue.MARROW] = _marrow_fat(person, fat_fraction[Tissue.MARROW])
    if rng is not None:
        t1 = t1 * np.exp(spread * rng.standard_normal(NUM_TISSUES))
        t2 = t2 * np.exp(spread * rng.standard_normal(NUM_TISSUES))
        density = density * np.exp(0.5 * spread * rng.standard_normal(NUM_TISSUES))
    return TissueParameters(
        t1=t1,
        t2=t2,
        t2_star=1 / (1 / t2 + np.maximum(reversible, 0.0)),
        proton_density=density,
        fat_fraction=fat_fraction,
        uptake=table[:, 7],
        texture=table[:, 8],
        field_strength=field_strength,
    )


def _age_white_matter(person: Person, t1: NDArray[np.float64], t2: NDArray[np.float64]) -> None:
    """Lengthen T1 and T2 of white matter on both sides of 40 years, by 8 % in 35 years.

    T1 falls until the fourth to sixth decade, in white matter earlier than in gray matter, and
    rises again, equally in men and women (Steen et al., Magn Reson Imaging 15:1133, 1997); rise and
    fall are symmetric (Yeatman et al., Nat Commun 5:4932, 2014). T2 also follows a U-shaped
    parabola (Hasan et al., Magn Reson Med 64:1382, 2010). The size is an assumption, because the
    papers show curves by region, not one number. At 60 years the times are those of the table, the
    mean of patients.
    """
    factor = (1 + 0.08 * ((person.age - 40) / 35) ** 2) / (1 + 0.08 * (20 / 35) ** 2)
    t1[Tissue.WHITE_MATTER] *= factor
    t2[Tissue.WHITE_MATTER] *= factor


def _putamen_iron(age: float) -> float:
    """Return the iron of the putamen in mg per 100 g (Hallgren & Sourander, J Neurochem, 1958)."""
    return 14.62 * (1 - float(np.exp(-0.04 * age))) + 0.46


def _age_deep_gray_matter(
    person: Person,
    field_strength: float,
    t2: NDArray[np.float64],
    reversible: NDArray[np.float64],
) -> None:
    """Adjust relaxation rates for the difference in iron from that at 52 years.

    At 3 T each mg per 100 g adds about 0.6 s⁻¹ to R2 and 0.46 s⁻¹ to R2′ (Gelman et al., Radiology
    210:759, 1999: from 12.7 and 2.2 s⁻¹ without iron to 25.8 and 12.0 s⁻¹ in the pallidum, which
    has 21 mg per 100 g), in proportion to the field (Mitsumori et al., Magn Reson Med 68:947,
    2012). Pallidum and putamen accumulate iron throughout life, the thalamus until 40 (Treit et
    al., Hum Brain Mapp 42:4597, 2021); the phantom has a single deep gray matter, which follows the
    putamen.
    """
    iron = (_putamen_iron(person.age) - _putamen_iron(52.0)) * field_strength / 3.0
    place = Tissue.DEEP_GRAY_MATTER
    t2[place] = 1 / (1 / t2[place] + 0.6e-3 * iron)
    reversible[place] += 0.46e-3 * iron


def _cartilage_t2(person: Person) -> float:
    """Return the T2 of cartilage relative to that at 42 years: 2 % longer per ten years.

    Joseph et al., Osteoarthritis Cartilage 23:897 (2015), find a weak rise in all compartments, of
    3.3 % in ten years in the patella, where it is largest.
    """
    return 1 + 0.002 * (person.age - 42)


def _marrow_fat(person: Person, usual: float) -> float:
    """Return the fat fraction of marrow, which rises with age and depends on sex.

    In vertebrae 32 % of men's and 27 % of women's marrow is fat in the third decade (Baum et al.,
    Front Endocrinol 9:141, 2018), and women have about 10 % more than men from 60 years on, after a
    sharp rise between 55 and 65 (Griffith et al., J Magn Reson Imaging 36:225, 2012). The marrow of
    the knee is mostly yellow, so a third of these differences is assumed there, and 1 % in ten
    years.
    """
    by_sex = 0.0
    if person.is_woman:
        by_sex = float(np.interp(person.age, (55, 65), (-0.02, 0.03)))
    return min(usual + 0.001 * (person.age - 42) + by_sex, 0.95)
