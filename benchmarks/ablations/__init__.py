"""Ablations of the prior's training."""
