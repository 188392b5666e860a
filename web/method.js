/** Nodes that have a choice of methods: of all the settings only those that the chosen one has. */

const NODES = ["ChooseMethod", "EraseConcept"];
const ROW_GAP = 4; // of the classic renderer, between widgets

/**
 * By setting, the methods that have it; nothing for inputs that all have.
 *
 * @param {any} node
 * @returns {Record<string, string[]>}
 */
function ofMethods(node) {
    const { required, optional } = node.constructor.nodeData?.input ?? {};
    const inputs = { ...required, ...optional };
    return Object.fromEntries(
        Object.entries(inputs)
            .map(([name, spec]) => [name, spec[1]?.of_methods])
            .filter(([, methods]) => methods),
    );
}

/**
 * Nodes 2.0 copies a node's widgets once, when it is added to the graph.
 *
 * @param {any} node
 */
export function lookAgain(node) {
    if (!globalThis.LiteGraph?.vueNodesMode || !node.graph) return;
    node.graph.onNodeRemoved?.(node);
    node.graph.onNodeAdded?.(node);
}

/** @param {any} node */
function showOwn(node) {
    const method = node.widgets?.find((widget) => widget.name === "method")?.value;
    for (const [name, methods] of Object.entries(ofMethods(node))) {
        const widget = node.widgets.find((one) => one.name === name);
        if (!widget) continue;
        const hidden = !methods.includes(method);
        widget.hidden = hidden;
        if (widget.options) widget.options.hidden = hidden; // which Nodes 2.0 reads
        // The classic renderer keeps a row for what is hidden: none, and without the gap above it.
        if (hidden) widget.computeSize = () => [0, -ROW_GAP];
        else delete widget.computeSize;
    }
    lookAgain(node);
    const [width, height] = node.computeSize();
    node.setSize([Math.max(node.size[0], width), height]);
    node.graph?.setDirtyCanvas(true, true);
}

/** @param {any} node */
export function showOwnSettings(node) {
    if (!NODES.includes(node.comfyClass)) return;
    const widget = node.widgets?.find((one) => one.name === "method");
    if (!widget) return;
    const { callback } = widget;
    widget.callback = function (...values) {
        const result = callback?.apply(this, values);
        showOwn(node);
        return result;
    };
    const { onConfigure } = node;
    node.onConfigure = function (...values) {
        const result = onConfigure?.apply(this, values);
        showOwn(node);
        return result;
    };
    showOwn(node);
}
