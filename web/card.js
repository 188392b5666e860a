/** One memory file of the library as an element: its concepts, and what can be done with them. */

import { address, ask, curvePicture, element } from "./page.js";
import { say } from "./texts.js";

/**
 * @typedef {object} Concept
 * @property {string} name
 * @property {string} token empty of what was erased
 * @property {string} class_word
 * @property {string} kind
 * @property {string} method
 * @property {string} learned_at
 * @property {number} steps
 * @property {boolean} thumbnail whether it has one
 *
 * @typedef {object} MemoryFile
 * @property {string} file
 * @property {number} bytes
 * @property {string} modified
 * @property {string} version changes whenever the file does
 * @property {string | null} fault why it cannot be read
 * @property {string | null} base
 * @property {boolean | null} other_base whether that is not the model that was used last; null: not known
 * @property {Concept[]} concepts
 *
 * @typedef {object} Acts what the buttons do
 * @property {(token: string) => void} copy
 * @property {(token: string) => void} insert
 * @property {(file: string) => void} rename
 * @property {(file: string) => void} remove
 */

/**
 * @param {MemoryFile} memory
 * @param {Acts} acts
 */
export function card(memory, acts) {
    const { file, bytes, modified, base, other_base: other } = memory;
    const why = say("other_model_hint");
    return element(
        "section",
        { class: "cns-file", "data-file": file },
        element(
            "header",
            {},
            element("div", { class: "cns-name", title: file }, file.replace(/\.safetensors$/i, "")),
            icon("pencil", say("rename"), () => acts.rename(file)),
            icon("trash", say("delete"), () => acts.remove(file)),
        ),
        element("div", { class: "cns-about" }, [size(bytes), day(modified), base].filter(Boolean).join(" · ")),
        other && element("div", {}, element("span", { class: "cns-other", title: why }, say("other_model"))),
        memory.fault && element("div", { class: "cns-fault" }, memory.fault),
        ...memory.concepts.map((concept, number) => row(memory, concept, number, acts)),
    );
}

/**
 * @param {MemoryFile} memory
 * @param {Concept} concept
 * @param {number} number its place in the file, from 0
 * @param {Acts} acts
 */
function row({ file, version }, concept, number, acts) {
    const { name, token, class_word: word, kind, method, steps, learned_at: when } = concept;
    const details = element("div", { class: "cns-details", hidden: true });
    const about = [word, kind, method, token && say("steps", { count: steps })].filter(Boolean).join(" · ");
    const shown = { type: "button", class: "cns-token", title: say("copy_token"), onclick: () => acts.copy(token) };
    return element(
        "div",
        { class: "cns-concept" },
        concept.thumbnail
            ? element("img", { src: thumbnail(file, number, version), alt: name, loading: "lazy" })
            : element("div", { class: "cns-none" }, say("no_picture")),
        element(
            "div",
            { class: "cns-facts" },
            element(
                "div",
                { class: "cns-tokens" },
                token !== "" && element("button", shown, token),
                token !== "" && icon("arrow-up-right", say("insert"), () => acts.insert(token)),
                icon("info-circle", say("details"), () => toggle(details, file, number)),
            ),
            element("div", { class: "cns-name" }, name),
            element("div", { class: "cns-about" }, about),
            element("div", { class: "cns-about" }, day(when)),
        ),
        details,
    );
}

/**
 * @param {string} file
 * @param {number} concept
 * @param {string} version
 */
function thumbnail(file, concept, version) {
    return address("/cns/library/thumbnail", { file, concept, version });
}

/**
 * @param {HTMLElement} details
 * @param {string} file
 * @param {number} concept
 */
async function toggle(details, file, concept) {
    details.hidden = !details.hidden;
    if (details.hidden || details.childElementCount) return;
    try {
        const { settings, losses } = await ask("/cns/library/concept", { file, concept });
        const groups = Object.entries(settings).filter(([, values]) => Object.keys(values).length);
        details.replaceChildren(curvePicture(losses, losses.steps), ...groups.map(table));
    } catch (error) {
        details.replaceChildren(element("div", { class: "cns-fault" }, /** @type {Error} */ (error).message));
    }
}

/** @param {[string, Record<string, unknown>]} group */
function table([name, values]) {
    const rows = Object.entries(values).map(([key, value]) => {
        const told = typeof value === "string" ? value : JSON.stringify(value);
        return element("tr", {}, element("th", {}, key), element("td", {}, told));
    });
    return element("table", {}, element("caption", {}, name), ...rows);
}

/**
 * A small button.
 *
 * @param {string} name of PrimeIcons, which the host's page has
 * @param {string} title
 * @param {() => void} act
 */
export function icon(name, title, act) {
    const attributes = { type: "button", class: `cns-icon pi pi-${name}`, title, "aria-label": title };
    return element("button", { ...attributes, onclick: act });
}

/** @param {number} bytes */
function size(bytes) {
    return bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

/** @param {string} when ISO 8601, or nothing */
function day(when) {
    const date = new Date(when);
    return Number.isNaN(date.getTime()) ? "" : date.toLocaleDateString(undefined, { dateStyle: "medium" });
}
