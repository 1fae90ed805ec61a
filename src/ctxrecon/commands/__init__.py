"""Commands of ``ctxrecon``, one per file; heavy imports are deferred until a command runs."""
