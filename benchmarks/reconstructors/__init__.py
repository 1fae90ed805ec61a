"""Reconstruction networks trained under equal conditions and compared."""
