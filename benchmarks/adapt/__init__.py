"""Adaptation of the prior to another scanner."""
