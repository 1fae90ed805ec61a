"""Coil maps: quality and speed compared with SigPy and BART."""
