"""Steps shared by the pipelines, from argument validation to the output."""
