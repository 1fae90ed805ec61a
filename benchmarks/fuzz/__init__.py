"""Mutated scan files: what reading them does, in processes with little memory and time."""
