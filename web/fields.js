/** Prompt fields of the page: the one that was used last, and writing into it. */

import { say } from "./texts.js";

// The classic renderer's fields have a class of their own; those of Nodes 2.0 lie in a node's widget.
const PROMPT = "textarea.comfy-multiline-input, .lg-node-widget textarea, [data-node-id] textarea";

/** @type {HTMLTextAreaElement | null} */
let last = null;

/**
 * @param {EventTarget | null} target
 * @returns {target is HTMLTextAreaElement}
 */
export function isPromptField(target) {
    return target instanceof HTMLTextAreaElement && !target.readOnly && target.matches(PROMPT);
}

/** Remember which field has the caret. */
export function trackFields() {
    document.addEventListener("focusin", (event) => {
        if (isPromptField(event.target)) last = event.target;
    });
}

/** The field that was used last, where it is still in the page. */
export function lastField() {
    return last?.isConnected ? last : null;
}

/**
 * Replace a part of a field's text as if it had been typed.
 *
 * @param {HTMLTextAreaElement} field
 * @param {number} start
 * @param {number} end
 * @param {string} text
 */
export function write(field, start, end, text) {
    field.setRangeText(text, start, end, "end");
    field.dispatchEvent(new Event("input", { bubbles: true }));
}

/**
 * Put a token where a field's caret is, with spaces between it and other words.
 *
 * @param {HTMLTextAreaElement} field
 * @param {string} token
 */
export function insertToken(field, token) {
    const { selectionStart: start, selectionEnd: end, value } = field;
    const before = start > 0 && /[\w>,.]/.test(value[start - 1]) ? " " : "";
    const after = /[\w<]/.test(value[end] ?? "") ? " " : "";
    write(field, start, end, `${before}${token}${after}`);
    field.focus();
}

/**
 * Copy text, also where the page is served without encryption.
 *
 * @param {string} text
 */
export async function copy(text) {
    if (navigator.clipboard && window.isSecureContext) return navigator.clipboard.writeText(text);
    const carrier = document.createElement("textarea");
    carrier.value = text;
    carrier.style.position = "fixed";
    carrier.style.opacity = "0";
    document.body.append(carrier);
    carrier.select();
    const done = document.execCommand("copy");
    carrier.remove();
    if (!done) throw new Error(say("no_copying"));
}
