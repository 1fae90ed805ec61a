"""Loading of checkpoint folders and their components."""
