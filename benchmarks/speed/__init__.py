"""Timings of reconstruction, training and their parts."""
