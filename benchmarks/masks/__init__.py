"""Learned k-space sampling masks and their reconstruction networks."""
