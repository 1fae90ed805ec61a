"""What a lab gains by adapting the prior to its own scanner."""
