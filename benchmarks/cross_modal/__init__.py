"""Reconstruction of an undersampled T2 scan with an unaligned T1 scan as reference."""
