/** Tokens of the library, offered where `<` is typed in a prompt field. Tab, Enter or a click takes one. */

import { isPromptField, write } from "./fields.js";
import { ask, element } from "./page.js";

const BEGUN = /<([a-z0-9_-]*)$/i;
const MOST = 8;
const FRESH = 10_000; // milliseconds for which a list is taken as it is

/** @typedef {{ token: string, name: string, class_word: string }} Offer */

const box = element("div", { class: "cns-completion", role: "listbox", hidden: true });
/** @type {{ offers: Offer[], at: number }} */
let known = { offers: [], at: -Infinity };
/** @type {HTMLTextAreaElement | null} the field that is completed now */
let field = null;
let chosen = 0;

/** Watch the page's prompt fields. */
export function addCompletion() {
    document.body.append(box);
    document.addEventListener("input", (event) => {
        if (isPromptField(event.target) && event.isTrusted) offer(event.target);
    });
    // Before the page's own short cuts, and before the field loses the caret to Tab.
    document.addEventListener("keydown", pressed, true);
    document.addEventListener("pointerdown", (event) => {
        if (!box.contains(/** @type {Node} */ (event.target))) close();
    });
    document.addEventListener("focusout", (event) => event.target === field && close());
    document.addEventListener("wheel", close, { passive: true });
}

/** @param {HTMLTextAreaElement} target */
async function offer(target) {
    if (begun(target) === null) return close();
    if (performance.now() - known.at > FRESH) await look();
    const typed = begun(target); // more may have been typed meanwhile
    if (typed === null || document.activeElement !== target) return close();
    const fitting = known.offers.filter(({ token }) => token.startsWith(`<${typed.toLowerCase()}`)).slice(0, MOST);
    if (!fitting.length) return close();
    field = target;
    box.replaceChildren(...fitting.map(line));
    choose(0);
    place(target);
}

async function look() {
    try {
        const { files } = await ask("/cns/library");
        /** @type {Map<string, Offer>} */
        const found = new Map();
        for (const file of files) for (const concept of file.concepts) if (concept.token) found.set(concept.token, concept);
        known = { offers: [...found.values()].sort((a, b) => (a.token < b.token ? -1 : 1)), at: performance.now() };
    } catch (error) {
        console.warn("CNS: the library could not be asked for tokens.", error);
    }
}

/**
 * What follows the last `<` before the caret; null where no token is being typed.
 *
 * @param {HTMLTextAreaElement} target
 */
function begun(target) {
    if (target.selectionStart !== target.selectionEnd) return null;
    return BEGUN.exec(target.value.slice(0, target.selectionStart))?.[1] ?? null;
}

/** @param {Offer} offered */
function line({ token, name, class_word: word }) {
    const made = element("div", { role: "option" }, element("b", {}, token), element("span", {}, `${name}, ${word}`));
    made.addEventListener("pointerdown", (event) => {
        event.preventDefault(); // the field keeps the caret
        event.stopPropagation();
        take(token);
    });
    return made;
}

/** @param {number} index */
function choose(index) {
    chosen = (index + box.childElementCount) % box.childElementCount;
    [...box.children].forEach((one, number) => one.setAttribute("aria-selected", String(number === chosen)));
}

/** @param {HTMLTextAreaElement} target */
function place(target) {
    const around = target.getBoundingClientRect();
    box.hidden = false;
    const below = around.bottom + box.offsetHeight < window.innerHeight;
    box.style.left = `${Math.max(0, Math.min(around.left, window.innerWidth - box.offsetWidth))}px`;
    box.style.top = `${Math.max(0, below ? around.bottom : around.top - box.offsetHeight)}px`;
}

/** @param {KeyboardEvent} event */
function pressed(event) {
    if (box.hidden || event.target !== field || event.isComposing) return;
    if (event.ctrlKey || event.metaKey || event.altKey) return; // the host's short cuts, weights among them
    const steps = { ArrowDown: 1, ArrowUp: -1 };
    if (event.key in steps) choose(chosen + steps[/** @type {keyof typeof steps} */ (event.key)]);
    else if (event.key === "Escape") close();
    else if (event.key === "Tab" || event.key === "Enter")
        take(box.children[chosen].querySelector("b")?.textContent ?? "");
    else return;
    event.preventDefault();
    event.stopImmediatePropagation();
}

/** @param {string} token */
function take(token) {
    if (!field) return;
    const typed = begun(field);
    const caret = field.selectionStart;
    if (typed !== null) write(field, caret - typed.length - 1, caret, token);
    close();
}

function close() {
    box.hidden = true;
    field = null;
}
