// Puts the texts that a node returns under it, and takes them away when a run returns none.
import { app } from "../../scripts/app.js";

const NODES = ["CultureAmplifyNeurons", "CultureEncodeSchedule", "CultureFromPrompt"];
const NAME = "message";

function show(node, output) {
  const text = [...new Set(output?.text ?? [])].join("\n");
  let widget = node.widgets?.find((one) => one.name === NAME);
  if (!text) {
    if (widget) remove(node, widget);
    return;
  }
  if (!widget) {
    widget = app.widgets.STRING(node, NAME, ["STRING", { multiline: true }], app).widget;
    widget.serialize = false; // not in the saved graph, whose values go by their order …
    widget.options = { ...widget.options, serialize: false, read_only: true }; // … nor in the queued one
    if (widget.inputEl) widget.inputEl.readOnly = true;
  }
  widget.value = text;
  const [width, height] = node.computeSize();
  node.setSize([Math.max(node.size[0], width), Math.max(node.size[1], height)]);
  app.graph.setDirtyCanvas(true, true);
}

function remove(node, widget) {
  if (node.removeWidget) {
    node.removeWidget(widget);
  } else {
    widget.onRemove?.();
    node.widgets.splice(node.widgets.indexOf(widget), 1);
  }
  node.setSize([node.size[0], node.computeSize()[1]]);
}

app.registerExtension({
  name: "culture.texts",
  nodeCreated(node) {
    if (!NODES.includes(node.comfyClass)) return;
    const onExecuted = node.onExecuted;
    node.onExecuted = function (output) {
      onExecuted?.call(this, output);
      show(this, output);
    };
  },
});
