"""Linear measurement operators: forward, adjoint and normal maps, and their algebra."""

from __future__ import annotations

from ctxrecon.operators.adjoint_test import adjoint_error, valid_adjoint
from ctxrecon.operators.algebra import ComposedOperator, Identity, LinearOperator
from ctxrecon.operators.cartesian import CartesianSense
from ctxrecon.operators.crop import Crop
from ctxrecon.operators.density import density_compensation
from ctxrecon.operators.inpainting import Inpainting
from ctxrecon.operators.interpolation import SincInterpolation
from ctxrecon.operators.multi_echo import MultiEcho
from ctxrecon.operators.non_cartesian import NonCartesianSense
from ctxrecon.operators.soft_sense import (
    EachSet,
    MaskedSense,
    SenseOperator,
    SoftSense,
    combine_sets,
    image_shape,
    sense_operator,
)
from ctxrecon.operators.stacked import StackedOperator
from ctxrecon.operators.super_resolution import SuperResolution
from ctxrecon.operators.weighted import WeightedSense

__all__ = [
    "CartesianSense",
    "ComposedOperator",
    "Crop",
    "EachSet",
    "Identity",
    "Inpainting",
    "LinearOperator",
    "MaskedSense",
    "MultiEcho",
    "NonCartesianSense",
    "SenseOperator",
    "SincInterpolation",
    "SoftSense",
    "StackedOperator",
    "SuperResolution",
    "WeightedSense",
    "adjoint_error",
    "combine_sets",
    "density_compensation",
    "image_shape",
    "sense_operator",
    "valid_adjoint",
]
