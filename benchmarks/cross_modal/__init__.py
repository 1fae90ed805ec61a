"""What a T1 scan that is not aligned does for the reconstruction of a T2 scan."""
