"""Networks that reconstruct directly, trained alike and compared."""
