"""Solvers: quality against evaluations, calibration, the default noise level."""
