"""The small prior that ships with the package, and the scan of the demo."""
