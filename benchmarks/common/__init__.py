"""What studies share: arguments, records, held-out scans, methods, statistics."""
