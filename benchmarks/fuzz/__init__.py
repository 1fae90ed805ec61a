"""Fuzzing of the file readers: no damaged file may crash, hang or exhaust memory."""
