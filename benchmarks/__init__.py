"""Studies that measure the package, each a module or a package of its own."""
