"""Short texts under a node, in the browser that queued the graph."""

import sys

from comfy_execution.utils import get_executing_context


def show_on_node(text: str, keep: bool = False) -> None:
    """Show a text on the node that is being executed, in place of the one it has; without a browser nothing
    happens.

    Args:
        keep: leave the text of an earlier run of the same node over a list, where there is one.
    """
    # Imported by main.py where there is a server, and by nothing else.
    server = getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
    context = get_executing_context()
    # Without a client the text would go to every browser, on whatever node has this number there.
    if server is None or context is None or server.client_id is None:
        return
    if not (keep and context.list_index):
        server.send_progress_text(text, context.node_id, sid=server.client_id)
