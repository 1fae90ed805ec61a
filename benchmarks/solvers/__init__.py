"""Solvers of the diffusion prior."""
