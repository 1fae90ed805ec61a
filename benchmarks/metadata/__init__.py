"""Effect of metadata prompts: complete, reduced and wrong."""
