"""Baselines, the shipped network and the prior on held-out phantom scans."""
