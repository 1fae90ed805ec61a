"""Checkpoint folders and what is built from them."""
