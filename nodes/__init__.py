"""The nodes: thin V3 classes over `culture_core.comfy`, a file a theme, each ending in `NODES`."""
