"""Tasks solved directly from undersampled k-space."""
