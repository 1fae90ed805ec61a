"""The small prior and the small network that ship with the package, and the scan of the demo."""
