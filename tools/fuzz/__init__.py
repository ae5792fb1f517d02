"""Fuzzing what strangers can hand to the pack: files, folders and workflows. See `docs/THREATS.md`."""
