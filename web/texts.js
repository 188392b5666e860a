/** What the pack's parts of the page say, in the editor's language: `locales/<language>/main.json`. */

import { app } from "../../scripts/app.js";
import { ask } from "./page.js";

/** @type {Record<string, string>} */
let texts = {};

/** Get the texts, before anything is shown. */
export async function readTexts() {
    const language = app.extensionManager?.setting?.get("Comfy.Locale") ?? "en";
    const given = await ask("/i18n");
    texts = { ...given.en?.cns, ...given[language]?.cns };
}

/**
 * A text, with values for the words in braces in it.
 *
 * @param {string} key
 * @param {Record<string, string | number>} [values]
 */
export function say(key, values = {}) {
    return (texts[key] ?? key).replace(/\{(\w+)\}/g, (whole, name) => String(values[name] ?? whole));
}
