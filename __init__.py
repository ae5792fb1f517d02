"""Find, amplify and enhance what a text encoder knows about cultures: a node pack for ComfyUI."""

WEB_DIRECTORY = "./web"
"""Where the front end finds the help of the nodes, and the script that writes on them."""


async def comfy_entrypoint():
    """What ComfyUI calls to load the pack. ComfyUI is imported here only, so that the library works without
    it."""
    from comfy_api.latest import ComfyExtension

    from .culture_core.comfy import register_model_folders, watch_queue
    from .nodes import (
        amplify,
        compare,
        encoder,
        enhance,
        probe,
        prompt,
        save,
        score,
        train,
        train_enhancer,
    )

    register_model_folders()
    watch_queue()

    class CultureExtension(ComfyExtension):
        async def get_node_list(self) -> list:
            themes = (encoder, prompt, amplify, enhance, probe, train, train_enhancer, save, compare, score)
            return [node for theme in themes for node in theme.NODES]

    return CultureExtension()
