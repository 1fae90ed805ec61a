"""Tasks that are read straight from k-space."""
