"""Does metadata help? Prompts right, reduced and wrong."""
