"""Signal equations: tissue signal as a function of TR, TE, TI, flip angle and contrast."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ctxrecon.errors import InputError
from ctxrecon.metadata import ScanMetadata
from ctxrecon.phantom.tissues import TissueParameters

FAT_SHIFT_PPM = -3.4
_GYROMAGNETIC_HZ_PER_T = 42.577e6
# Relaxivity times dose of a gadolinium agent in blood a few minutes after injection, in 1/ms
_AGENT_RATE = 4.5e-3
# Fraction of the fat signal that remains after chemical-shift-selective saturation
_FAT_RESIDUE = 0.06


def spin_echo(
    t1: NDArray, t2: NDArray, tr: float, te: float, refocusing_angle: float = 180.0
) -> NDArray:
    r"""Compute the signal of a (turbo) spin echo with a 90° excitation.

    .. math::

        S = \sin\tfrac{\alpha}{2}\, [1 - 2 e^{-(TR - TE/2)/T_1} + e^{-TR/T_1}]\, e^{-TE\, R},
        \qquad R = \frac{\sin^2(\alpha/2)}{T_2} + \frac{\cos^2(\alpha/2)}{T_1}

    With refocusing angles α below 180° part of the magnetization is stored along z, so it decays
    with the mixed rate R (Hennig & Scheffler, MRM 44:983, 2000); α = 180° is the textbook spin
    echo.

    Args:
        t1, t2: Relaxation times in ms.
        tr, te: Repetition time and (effective) echo time in ms.
        refocusing_angle: α in degrees, which scanners report as the flip angle of a TSE.
    """
    half = math.radians(refocusing_angle) / 2
    rate = math.sin(half) ** 2 / t2 + math.cos(half) ** 2 / t1
    recovery = 1 - 2 * np.exp(-(tr - te / 2) / t1) + np.exp(-tr / t1)
    return math.sin(half) * recovery * np.exp(-te * rate)


def inversion_recovery(
    t1: NDArray, t2: NDArray, tr: float, te: float, ti: float, refocusing_angle: float = 180.0
) -> NDArray:
    r"""Compute the signal of an inversion-recovery (turbo) spin echo.

    .. math::

        S = \sin\tfrac{\alpha}{2}\, [1 - 2 e^{-TI/T_1} + e^{-(TR - TE)/T_1}]\, e^{-TE\, R}

    with R of :func:`spin_echo`. The signal is negative while the magnetization is inverted.
    """
    half = math.radians(refocusing_angle) / 2
    rate = math.sin(half) ** 2 / t2 + math.cos(half) ** 2 / t1
    recovery = 1 - 2 * np.exp(-ti / t1) + np.exp(-(tr - te) / t1)
    return math.sin(half) * recovery * np.exp(-te * rate)


def spoiled_gradient_echo(
    t1: NDArray, t2_star: NDArray, tr: float, te: float, flip_angle: float
) -> NDArray:
    r"""Compute the signal of a spoiled gradient echo (FLASH; Ernst & Anderson, 1966).

    .. math::

        S = \sin\alpha\, \frac{1 - E_1}{1 - E_1 \cos\alpha}\, e^{-TE/T_2^*}, \qquad
        E_1 = e^{-TR/T_1}
    """
    alpha = math.radians(flip_angle)
    e1 = np.exp(-tr / t1)
    return math.sin(alpha) * (1 - e1) / (1 - e1 * math.cos(alpha)) * np.exp(-te / t2_star)


def dess(
    t1: NDArray, t2: NDArray, tr: float, te: float, flip_angle: float
) -> tuple[NDArray, NDArray]:
    r"""Compute the FISP echo S⁺ and the PSIF echo S⁻ of a double echo in the steady state.

    .. math::

        S^+ &= \tan\tfrac{\alpha}{2}\, [1 - (E_1 - \cos\alpha)\, r]\, e^{-TE/T_2}, \\
        S^- &= \tan\tfrac{\alpha}{2}\, [1 - (1 - E_1 \cos\alpha)\, r]\, e^{+TE/T_2}

    with ``p = 1 − E1 cos α − E2² (E1 − cos α)``, ``q = E2 (1 − E1)(1 + cos α)`` and
    ``r = (1 − E2²)/√(p² − q²)``. The second echo forms TE before the next pulse (Hänicke & Vogel,
    MRM 49:771, 2003).
    """
    alpha = math.radians(flip_angle)
    cos = math.cos(alpha)
    e1, e2 = np.exp(-tr / t1), np.exp(-tr / t2)
    p = 1 - e1 * cos - e2**2 * (e1 - cos)
    q = e2 * (1 - e1) * (1 + cos)
    r = (1 - e2**2) / np.sqrt(p**2 - q**2)
    scale = math.tan(alpha / 2)
    plus = scale * (1 - (e1 - cos) * r) * np.exp(-te / t2)
    minus = scale * (1 - (1 - e1 * cos) * r) * np.exp(te / t2)
    return plus, minus


def signal(parameters: TissueParameters, metadata: ScanMetadata) -> NDArray[np.complex128]:
    """Compute the complex signal of each tissue in one scan, ``(NUM_TISSUES,)``.

    The sequence determines the equation: ``TurboSpinEcho`` and ``SpinEcho`` (with an inversion for
    FLAIR contrast, or for T1 with a TI above 300 ms), ``Flash``, ``Qdess`` (root of the sum of
    squares of both echoes). PDFS suppresses fat; T1POST shortens T1 where contrast agent
    accumulates. Water and fat are summed; fat is off resonance by −3.4 ppm unless a spin echo
    refocuses it.

    Example:
        >>> from ctxrecon.metadata import ScanMetadata
        >>> from ctxrecon.phantom import signal, tissue_parameters
        >>> metadata = ScanMetadata(contrast="T2", tr=4000.0, te=90.0)
        >>> signal(tissue_parameters(3.0), metadata).shape
        (22,)

    Args:
        parameters: Tissue parameters at their field strength.
        metadata: Scan metadata with ``tr`` and ``te`` in ms, and with ``ti`` in ms and
            ``flip_angle`` in degrees if the sequence has them.

    Raises:
        InputError: If a required value is missing, TE is not below TR, or the sequence is unknown.
    """
    sequence = (metadata.sequence or "TurboSpinEcho").lower()
    contrast = (metadata.contrast or "").upper()
    tr, te = metadata.tr, metadata.te
    if tr is None or te is None:
        raise InputError("the phantom needs TR and TE in ms to compute a signal; pass both")
    if te >= tr:
        raise InputError(f"expected TE below TR, got TE {te} ms and TR {tr} ms")
    if contrast == "T1POST":
        rate = 1 / parameters.t1 + _AGENT_RATE * parameters.uptake
        parameters = replace(parameters, t1=1 / rate)
    t1, t2, t2_star = parameters.t1, parameters.t2, parameters.t2_star
    fat_phase = 1.0 + 0.0j
    if sequence in {"turbospinecho", "spinecho"}:
        refocusing = metadata.flip_angle if sequence == "turbospinecho" else None
        ti = metadata.ti
        inverted = contrast == "FLAIR" or (contrast.startswith("T1") and (ti or 0) > 300)
        if inverted:
            if ti is None:
                raise InputError("an inversion-recovery contrast needs TI in ms; pass TI")
            weight = inversion_recovery(t1, t2, tr, te, ti, refocusing or 180.0)
        else:
            weight = spin_echo(t1, t2, tr, te, refocusing or 180.0)
    elif sequence in {"flash", "qdess"}:
        if metadata.flip_angle is None:
            raise InputError(f"sequence {metadata.sequence} needs a flip angle in degrees")
        shift = FAT_SHIFT_PPM * 1e-6 * _GYROMAGNETIC_HZ_PER_T * parameters.field_strength
        fat_phase = complex(np.exp(2j * np.pi * shift * te * 1e-3))
        if sequence == "flash":
            weight = spoiled_gradient_echo(t1, t2_star, tr, te, metadata.flip_angle)
        else:
            weight = np.hypot(*dess(t1, t2, tr, te, metadata.flip_angle))
    else:
        raise InputError(
            f"no signal equation for sequence {metadata.sequence!r}; expected TurboSpinEcho, "
            "SpinEcho, Flash or Qdess"
        )
    fat = parameters.fat_fraction * (_FAT_RESIDUE if contrast == "PDFS" else 1.0)
    if sequence == "qdess":  # the qDESS of SKM-TEA excites water only
        fat = fat * _FAT_RESIDUE
    return parameters.proton_density * weight * (1 - parameters.fat_fraction + fat * fat_phase)
