"""Steps that the pipelines share, from checked arguments to an output."""
