/** Settings of another way to learn than the chosen one are shown as switched off: `for` in a node's inputs. */

import { lookAgain } from "./method.js";

const CHOICE = "what_may_move";
const SELECT = "SelectConceptNeurons";
const TRAIN = "ContinualTrain";

/**
 * Which way a node's settings are of: one of those that Select Concept Neurons offers, "" for none of them,
 * undefined where it cannot be told.
 *
 * @param {any} node
 * @returns {string | undefined}
 */
function chosenFor(node) {
    const select = node.comfyClass === SELECT ? node : sourceOf(node, "neurons");
    if (select?.comfyClass === "ChooseMethod") return "";
    if (select?.comfyClass !== SELECT) return undefined;
    const slot = select.inputs?.find((/** @type {any} */ input) => input.name === CHOICE);
    return slot?.link ? undefined : select.widgets?.find((/** @type {any} */ one) => one.name === CHOICE)?.value;
}

/**
 * The node that an input is wired to.
 *
 * @param {any} node
 * @param {string} name
 */
function sourceOf(node, name) {
    const slot = node.inputs?.findIndex((/** @type {any} */ input) => input.name === name) ?? -1;
    return slot < 0 ? null : node.getInputNode?.(slot);
}

/** @param {any} node */
function mark(node) {
    const chosen = chosenFor(node);
    const { required, optional } = node.constructor.nodeData?.input ?? {};
    const inputs = { ...required, ...optional };
    let changed = false;
    for (const widget of node.widgets ?? []) {
        const ways = inputs[widget.name]?.[1]?.for;
        if (!ways) continue;
        const off = chosen !== undefined && !ways.includes(chosen);
        changed ||= off !== Boolean(widget.disabled);
        widget.disabled = off;
        if (widget.options) widget.options.disabled = off; // which Nodes 2.0 reads
    }
    if (!changed) return;
    lookAgain(node);
    node.graph?.setDirtyCanvas(true, false);
}

/**
 * Those that learn by what a node selects.
 *
 * @param {any} node
 * @returns {any[]}
 */
function learners(node) {
    const outputs = node.outputs ?? [];
    return outputs
        .flatMap((/** @type {any} */ _, /** @type {number} */ slot) => node.getOutputNodes?.(slot) ?? [])
        .filter((/** @type {any} */ other) => other.comfyClass === TRAIN);
}

/** @param {any} node */
export function markRelevant(node) {
    if (node.comfyClass === SELECT) {
        const widget = node.widgets?.find((/** @type {any} */ one) => one.name === CHOICE);
        if (!widget) return;
        after(widget, "callback", () => [node, ...learners(node)].forEach(mark));
        after(node, "onConfigure", () => mark(node));
    } else if (node.comfyClass === TRAIN) {
        after(node, "onConnectionsChange", () => mark(node));
    } else return;
    mark(node);
}

/**
 * All nodes of a graph that has just been opened: while it is, they are not wired yet.
 *
 * @param {any} graph
 */
export function markAll(graph) {
    for (const node of graph?.nodes ?? []) {
        if (node.comfyClass === SELECT || node.comfyClass === TRAIN) mark(node);
        if (node.subgraph) markAll(node.subgraph);
    }
}

/**
 * Do something more after a method of an object's.
 *
 * @param {any} object
 * @param {string} name
 * @param {() => void} more
 */
function after(object, name, more) {
    const before = object[name];
    object[name] = function (/** @type {any[]} */ ...values) {
        const result = before?.apply(this, values);
        more();
        return result;
    };
}
