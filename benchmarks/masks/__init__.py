"""Learned k-space masks with their networks."""
