"""Priors and baselines on slices of real people whom no prior was trained on."""
