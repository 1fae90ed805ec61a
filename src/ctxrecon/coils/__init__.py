"""Receiver coils: estimation and simulation of coil maps, combination, compression, noise."""

from ctxrecon.coils._espirit import EspiritMaps, espirit
from ctxrecon.coils._walsh import walsh
from ctxrecon.coils.arrays import simulate_coil_maps
from ctxrecon.coils.calibration import estimate_coil_maps, find_calibration_region
from ctxrecon.coils.combine import (
    CompressedCoils,
    compress_coils,
    mvue,
    prewhiten,
    root_sum_of_squares,
    whitening_matrix,
)

__all__ = [
    "CompressedCoils",
    "EspiritMaps",
    "compress_coils",
    "espirit",
    "estimate_coil_maps",
    "find_calibration_region",
    "mvue",
    "prewhiten",
    "root_sum_of_squares",
    "simulate_coil_maps",
    "walsh",
    "whitening_matrix",
]
