"""The commands of ``ctxrecon``, one file each; heavy imports happen when a command runs."""
