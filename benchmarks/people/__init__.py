"""Priors and baselines on slices of held-out real people."""
