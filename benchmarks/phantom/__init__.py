"""Baselines, networks and the diffusion prior on held-out phantom scans."""
