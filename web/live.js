/** Watching a concept being learned, in the node that learns it: see `cns_core/host/live.py`. */

import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { ask, curvePicture, duration, element, post } from "./page.js";
import { say } from "./texts.js";

const LEARNING = ["ContinualTrain", "RefineConcept"];
const WIDGET = "cns_live";
const IDLE_HEIGHT = 44; // pixels of the node, with the margin around the widget
const HEIGHT = 300;

/**
 * @typedef {object} Run
 * @property {string} prompt_id
 * @property {string} node
 * @property {string} name
 * @property {string} token
 * @property {"preparing" | "learning" | "finished" | "stopped" | "kept" | "cancelled" | "failed"} status
 * @property {number} step
 * @property {number} steps
 * @property {number} resumed the step that it went on after; 0 for a fresh one
 * @property {number | null} seconds_left
 * @property {boolean} [stopping]
 * @property {import("./page.js").Curves} losses
 * @property {string[]} [pictures]
 * @property {string} [preview]
 */

/**
 * @typedef {object} Panel the widget's element, and those of its parts that change; the button stays the same
 * one, or a message between pressing and releasing the mouse would take the click
 * @property {HTMLElement} root
 * @property {HTMLElement} token
 * @property {HTMLElement} words
 * @property {HTMLButtonElement} stop
 * @property {HTMLElement} bar
 * @property {HTMLElement} curves
 * @property {HTMLElement} own the concept's own pictures
 * @property {HTMLElement} drawn
 * @property {Run | null} run
 * @property {boolean} queued whether a run that is still to come waits in the host's queue
 */

/** @type {WeakMap<object, Panel>} by node */
const panels = new WeakMap();
/** @type {Map<string, Run>} what is known of each node's newest run, by the id under which it is run */
const runs = new Map();
/** @type {Map<string, Promise<string | undefined>>} the id of the workflow that was queued, by prompt */
const workflows = new Map();
/** @type {Set<Panel>} */
let waiting = new Set();
let looks = 0;

/**
 * Give a node that learns its widget. It shows one line until the node runs.
 *
 * @param {any} node
 */
export function addLiveWidget(node) {
    if (!LEARNING.includes(node.comfyClass) || panels.has(node) || typeof node.addDOMWidget !== "function") return;
    const panel = newPanel();
    panels.set(node, panel);
    const height = () => (panel.root.dataset.status === "idle" ? IDLE_HEIGHT : HEIGHT);
    const options = { serialize: false, hideOnZoom: false, getMinHeight: height, getMaxHeight: height };
    const widget = node.addDOMWidget(WIDGET, WIDGET, panel.root, options);
    widget.serialize = false; // graphs are saved as if it were not there
}

/** Listen to the server, and ask it once for what runs already. */
export function watch() {
    api.addEventListener("cns.progress", (/** @type {CustomEvent<Run>} */ event) => heard(event.detail));
    api.addEventListener("reconnected", catchUp);
    api.addEventListener("status", seeQueue); // comes whenever something is queued, or done
    return catchUp();
}

/** Tell which nodes of the open workflow will learn when it is their turn. */
async function seeQueue() {
    const look = ++looks;
    /** @type {Set<Panel>} */
    const found = new Set();
    try {
        const { queue_running: running, queue_pending: pending } = await ask("/queue");
        for (const [, prompt, graph, more] of [...running, ...pending]) {
            const workflow = more?.extra_pnginfo?.workflow?.id;
            if (workflow && workflow !== (app.rootGraph ?? app.graph).id) continue;
            for (const [id, { class_type: kind }] of Object.entries(graph)) {
                if (!LEARNING.includes(kind) || runs.get(id)?.prompt_id === prompt) continue;
                const panel = panels.get(nodeOf(id));
                if (panel && !isRunning(panel.run)) found.add(panel);
            }
        }
    } catch (error) {
        console.warn("CNS: the queue could not be asked for what waits.", error);
    }
    if (look !== looks) return; // another look was newer
    for (const panel of new Set([...waiting, ...found])) {
        panel.queued = found.has(panel);
        panel.words.textContent = words(panel);
    }
    waiting = found;
}

/** Show what runs now; for a graph that has just been opened, too. */
export async function catchUp() {
    try {
        const { runs: running } = await ask("/cns/live");
        await Promise.all(running.map(heard));
    } catch (error) {
        console.warn("CNS: what is being learned could not be asked for.", error);
    }
}

/** @param {Run} told pictures and preview are in it only where they are new */
async function heard(told) {
    const known = runs.get(told.node);
    const run = known?.prompt_id === told.prompt_id ? { ...known, ...told } : told;
    runs.set(told.node, run);
    if (!(await isOfOpenWorkflow(run.prompt_id)) || runs.get(told.node) !== run) return;
    const node = nodeOf(told.node);
    const panel = panels.get(node);
    if (panel) show(node, panel, run);
}

/**
 * Whether a prompt is of the workflow that is open, as far as that is known: what is queued by other programs
 * has no workflow. Another one may have a node of the same id.
 *
 * @param {string} prompt
 */
async function isOfOpenWorkflow(prompt) {
    if (!workflows.has(prompt)) workflows.set(prompt, workflowOf(prompt));
    const workflow = await workflows.get(prompt);
    return !workflow || workflow === (app.rootGraph ?? app.graph).id;
}

/**
 * The id of the workflow that a running prompt was made of: the host's queue has it.
 *
 * @param {string} prompt
 * @returns {Promise<string | undefined>}
 */
async function workflowOf(prompt) {
    try {
        const { queue_running: running } = await ask("/queue");
        const [, , , more] = running.find((/** @type {any[]} */ [, id]) => id === prompt) ?? [];
        return more?.extra_pnginfo?.workflow?.id;
    } catch (error) {
        console.warn("CNS: the queue could not be asked for what runs.", error);
        return undefined;
    }
}

/**
 * The node that is run under an id: below subgraphs these are several, with colons between.
 *
 * @param {string} id
 * @returns {any}
 */
function nodeOf(id) {
    let graph = app.rootGraph ?? app.graph;
    let node = null;
    for (const part of id.split(":")) {
        node = graph?.getNodeById(Number.isNaN(Number(part)) ? part : Number(part));
        graph = node?.subgraph;
    }
    return node;
}

/** @returns {Panel} */
function newPanel() {
    const root = element("div", { class: "cns-live", "data-status": "idle" });
    const stop = /** @type {HTMLButtonElement} */ (
        element("button", { type: "button", class: "cns-stop" }, say("stop"))
    );
    const panel = {
        root,
        stop,
        token: element("b"),
        words: element("div", { class: "cns-words" }, say("idle")),
        bar: element("div"),
        curves: element("div", { class: "cns-curves" }),
        own: element("div", { class: "cns-own" }),
        drawn: element("div", { class: "cns-preview" }),
        run: null,
        queued: false,
    };
    stop.title = say("stop_hint");
    stop.addEventListener("click", (event) => {
        event.stopPropagation();
        stopAndKeep(panel);
    });
    root.append(
        element("div", { class: "cns-line" }, panel.token, stop),
        panel.words,
        element("div", { class: "cns-bar" }, panel.bar),
        panel.curves,
        element(
            "div",
            { class: "cns-pictures" },
            element("figure", {}, panel.own, element("figcaption", {}, say("own_pictures"))),
            element("figure", {}, panel.drawn, element("figcaption", {}, say("drawn_now"))),
        ),
    );
    return panel;
}

/**
 * @param {any} node
 * @param {Panel} panel
 * @param {Run} run
 */
function show(node, panel, run) {
    const was = panel.run;
    panel.run = run;
    panel.queued = false;
    panel.root.dataset.status = run.status;
    panel.token.textContent = run.token;
    panel.token.title = run.name;
    panel.words.textContent = words(panel);
    panel.stop.hidden = !isRunning(run);
    panel.stop.disabled = Boolean(run.stopping);
    panel.bar.style.width = `${run.steps ? (100 * run.step) / run.steps : 0}%`;
    panel.curves.replaceChildren(...curvePicture(run.losses, run.steps).childNodes);
    if (run.pictures !== was?.pictures) panel.own.replaceChildren(...(run.pictures ?? []).map(picture));
    if (!was || run.preview !== was.preview) {
        panel.drawn.replaceChildren(run.preview ? picture(run.preview) : say("no_preview"));
        panel.drawn.classList.toggle("cns-none", !run.preview);
    }
    if (!was) grow(node);
    node.setDirtyCanvas?.(true, false);
}

/** @param {Run | null} run */
function isRunning(run) {
    return run?.status === "preparing" || run?.status === "learning";
}

/** @param {string} source */
function picture(source) {
    return element("img", { src: source, alt: "", draggable: "false" });
}

/** @param {Panel} panel */
function words({ run, queued }) {
    if (queued) return say("queued");
    if (!run) return say("idle");
    const of = `${run.step} / ${run.steps}`;
    const from = run.resumed ? `, ${say("resumed", { step: run.resumed })}` : "";
    switch (run.status) {
        case "preparing":
            return run.resumed ? `${of}${from}` : say("preparing");
        case "learning": {
            const left = run.seconds_left === null ? "" : `, ${say("left", { time: duration(run.seconds_left) })}`;
            return `${of}${from}${run.stopping ? `, ${say("stopping")}` : left}`;
        }
        case "finished":
            return `${of}, ${say("learned")}`;
        case "stopped":
            return `${of}, ${say("stopped")}`;
        case "kept":
            return `${of}, ${say("kept")}`;
        case "cancelled":
            return `${of}, ${say("cancelled")}`;
        default:
            return `${of}, ${say("failed")}`;
    }
}

/** @param {Panel} panel */
async function stopAndKeep({ run, stop }) {
    if (!run) return;
    stop.disabled = true;
    try {
        await post("/cns/stop", { prompt_id: run.prompt_id, node: run.node });
    } catch (error) {
        const detail = /** @type {Error} */ (error).message;
        app.extensionManager.toast.add({ severity: "warn", summary: say("not_stopped"), detail, life: 6000 });
    }
}

/**
 * Make room for the widget in the classic renderer; the other one measures it by itself.
 *
 * @param {any} node
 */
function grow(node) {
    const [, least] = node.computeSize?.() ?? [0, 0];
    if (node.size && least > node.size[1]) node.setSize?.([node.size[0], least]);
}
