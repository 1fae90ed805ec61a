"""What becomes of scan files that are damaged: none may crash, hang or take the memory."""
