"""Programs of the repository: a headless ComfyUI server, its client, the demo. ComfyUI never loads them."""
