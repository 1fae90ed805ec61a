"""Code shared by the studies: arguments, records, held-out scans, methods and statistics."""
