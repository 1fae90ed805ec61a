"""Coil maps: time and agreement, and the reconstructions that they give."""
