/** The library of concepts in the sidebar: see `cns_core/host/library.py`. */

import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { card, icon } from "./card.js";
import { copy, insertToken, lastField } from "./fields.js";
import { ask, element, post } from "./page.js";
import { say } from "./texts.js";

/** @typedef {{ name: string, file: string, when: string }} Trashed */

const root = element("div", { class: "cns-library" });
/** @type {{ files: import("./card.js").MemoryFile[], trash: Trashed[] }} */
let shown = { files: [], trash: [] };
let wanted = ""; // what is searched for
let trashOpen = false;

const acts = {
    /** @param {string} token */
    copy: (token) => told(copy(token), say("copied", { token })),
    insert,
    rename,
    /** @param {string} file */
    remove: (file) => change("/cns/library/trash", { file }),
};

/** Add the tab to the sidebar. */
export function addLibrary() {
    app.extensionManager.registerSidebarTab({
        id: "cns-library",
        icon: "pi pi-book",
        title: say("concepts"),
        tooltip: say("concepts_hint"),
        type: "custom",
        /** @param {HTMLElement} place The host calls this at every change of its own. */
        render(place) {
            if (root.parentNode === place) return;
            place.replaceChildren(root);
            reload();
        },
    });
    api.addEventListener("execution_success", () => root.isConnected && reload());
}

/** Ask for the list, and show it. */
async function reload() {
    try {
        shown = await ask("/cns/library");
        draw();
    } catch (error) {
        root.replaceChildren(head(), element("div", { class: "cns-fault" }, message(error)));
    }
}

function draw() {
    const advice = say("none_yet", { train: named("ContinualTrain"), save: named("SaveConceptMemory") });
    const none = element("div", { class: "cns-hint" }, advice);
    root.replaceChildren(head(), ...(shown.files.length ? shown.files.map((file) => card(file, acts)) : [none]));
    if (shown.trash.length) root.append(trash());
    search();
}

function head() {
    const field = /** @type {HTMLInputElement} */ (
        element("input", { type: "search", placeholder: say("search"), "aria-label": say("search_concepts"), value: wanted })
    );
    field.addEventListener("input", () => {
        wanted = field.value;
        search();
    });
    const again = icon("refresh", say("look_again"), reload);
    return element("div", { class: "cns-head" }, element("h3", {}, say("concepts")), field, again);
}

/** Hide what does not have the words that are searched for. */
function search() {
    const words = wanted.toLowerCase().split(/\s+/).filter(Boolean);
    for (const one of root.querySelectorAll(".cns-file")) {
        const text = `${one.getAttribute("data-file")} ${one.textContent}`.toLowerCase();
        one.toggleAttribute("hidden", !words.every((word) => text.includes(word)));
    }
}

function trash() {
    const rows = shown.trash.map(({ name, file, when }) =>
        element(
            "div",
            { class: "cns-gone", "data-file": file },
            element("span", { class: "cns-name", title: `${file}, ${say("deleted", { when })}` }, file),
            icon("undo", say("put_back"), () => change("/cns/library/restore", { name })),
        ),
    );
    const summary = element("summary", {}, say("trash", { count: rows.length }));
    const made = element("details", { class: "cns-trash", open: trashOpen }, summary, ...rows);
    made.addEventListener("toggle", () => (trashOpen = /** @type {HTMLDetailsElement} */ (made).open));
    return made;
}

/** @param {string} token */
function insert(token) {
    const field = lastField();
    if (field) insertToken(field, token);
    else toast("warn", say("click_first"));
}

/** @param {string} file */
async function rename(file) {
    const name = await app.extensionManager.dialog.prompt({
        title: say("rename"),
        message: say("new_name"),
        defaultValue: file.replace(/\.safetensors$/i, "").replaceAll("\\", "/"),
    });
    if (name) await change("/cns/library/rename", { file, name });
}

/**
 * Change something, then look again; the loading nodes too.
 *
 * @param {string} path
 * @param {Record<string, string>} body
 */
async function change(path, body) {
    await told(post(path, body));
    await reload();
    await app.refreshComboInNodes?.();
}

/**
 * Wait for something, and say how it went.
 *
 * @param {Promise<unknown>} work
 * @param {string} [done]
 */
async function told(work, done) {
    try {
        await work;
        if (done) toast("success", done);
    } catch (error) {
        toast("error", message(error));
    }
}

/**
 * @param {"success" | "warn" | "error"} severity
 * @param {string} detail
 */
function toast(severity, detail) {
    const life = severity === "error" ? 8000 : 3000; // milliseconds
    app.extensionManager.toast.add({ severity, summary: say("concepts"), detail, life });
}

/**
 * What the editor calls a node.
 *
 * @param {string} type
 */
function named(type) {
    return window.LiteGraph?.registered_node_types?.[type]?.title ?? type;
}

/** @param {unknown} error */
function message(error) {
    return error instanceof Error ? error.message : String(error);
}
