/**
 * What the pack's parts of the page share: elements, requests, curves.
 *
 * Text from files and from the server becomes text nodes alone, never markup.
 */

import { api } from "../../scripts/api.js";
import { say } from "./texts.js";

const SVG = "http://www.w3.org/2000/svg";
const COLOURS = ["#5aa9e6", "#f2a541", "#7fc96b", "#d97ab8", "#b59cf2", "#e06c5b"];

/**
 * An element with attributes and children; strings become text nodes, `on...` functions become listeners.
 *
 * @param {string} name
 * @param {Record<string, any>} [attributes]
 * @param {...(Node | string | null | undefined | false)} children
 * @returns {HTMLElement}
 */
export function element(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
        if (value === null || value === undefined || value === false) continue;
        if (typeof value === "function") made.addEventListener(key.slice(2), value);
        else made.setAttribute(key, value === true ? "" : String(value));
    }
    made.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
    return made;
}

/** Load the pack's style sheet, once. */
export function addStyle() {
    const href = new URL("./style.css", import.meta.url).href;
    if (!document.querySelector(`link[href="${href}"]`))
        document.head.append(element("link", { rel: "stylesheet", href }));
}

/**
 * The answer to a GET, decoded. Error, with the server's own message, when it refuses.
 *
 * @param {string} path
 * @param {Record<string, string | number>} [query]
 * @returns {Promise<any>}
 */
export async function ask(path, query) {
    return answered(await api.fetchApi(withQuery(path, query)));
}

/**
 * The answer to a POST of JSON, decoded. Error, with the server's own message, when it refuses.
 *
 * @param {string} path
 * @param {Record<string, string>} body
 * @returns {Promise<any>}
 */
export async function post(path, body) {
    const headers = { "Content-Type": "application/json" };
    return answered(await api.fetchApi(path, { method: "POST", headers, body: JSON.stringify(body) }));
}

/**
 * An address of the server for a picture.
 *
 * @param {string} path
 * @param {Record<string, string | number>} query
 */
export function address(path, query) {
    return api.apiURL(withQuery(path, query));
}

/**
 * @param {string} path
 * @param {Record<string, string | number> | undefined} query
 */
function withQuery(path, query) {
    return query ? `${path}?${new URLSearchParams(Object.entries(query).map(([k, v]) => [k, `${v}`]))}` : path;
}

/** @param {Response} response */
async function answered(response) {
    const kind = response.headers.get("Content-Type") ?? "";
    const body = kind.startsWith("application/json") ? await response.json() : null;
    if (!response.ok || body === null)
        throw new Error(body?.error ?? say("server_answered", { status: `${response.status} ${response.statusText}` }));
    return body;
}

/**
 * @typedef {object} Curves
 * @property {Record<string, number[]>} points by name; each the mean of `every` steps
 * @property {number} every
 * @property {number} steps how many steps they are of
 */

/**
 * Loss curves as a picture with a legend. All share the steps, each has its own height: losses differ in size.
 *
 * @param {Curves} curves
 * @param {number} total steps that the width stands for
 * @returns {HTMLElement}
 */
export function curvePicture(curves, total) {
    const picture = document.createElementNS(SVG, "svg");
    picture.setAttribute("viewBox", "0 0 300 100");
    picture.setAttribute("preserveAspectRatio", "none");
    const legend = element("div", { class: "cns-legend" });
    const names = Object.keys(curves.points);
    names.forEach((name, index) => {
        const colour = COLOURS[index % COLOURS.length];
        const values = curves.points[name];
        if (!values.length) return;
        // Each step's loss depends on the noise that it drew: the trend is what tells something.
        const trend = smoothed(values);
        const range = [Math.min(...values), Math.max(...values)];
        for (const [kind, line] of [["cns-raw", values], ["cns-trend", trend]]) {
            const drawn = document.createElementNS(SVG, "polyline");
            drawn.setAttribute("points", points(line, range, curves, total));
            drawn.setAttribute("stroke", colour);
            drawn.setAttribute("class", kind);
            picture.append(drawn);
        }
        const key = element("span", { class: "cns-key", style: `background:${colour}` });
        const last = Number(trend[trend.length - 1].toPrecision(3));
        legend.append(element("span", { title: say("mean_of_last") }, key, `${name} ${last}`));
    });
    return element("div", { class: "cns-curves" }, element("div", { class: "cns-plot" }, picture), legend);
}

/**
 * Running means.
 *
 * @param {number[]} values
 */
function smoothed(values) {
    const width = Math.max(1, Math.ceil(values.length / 8));
    return values.map((_, index) => {
        const near = values.slice(Math.max(0, index + 1 - width), index + 1);
        return near.reduce((sum, value) => sum + value, 0) / near.length;
    });
}

/**
 * @param {number[]} values
 * @param {number[]} range the least and the greatest value
 * @param {Curves} curves
 * @param {number} total
 */
function points(values, [low, high], curves, total) {
    const height = high - low || 1;
    const at = values.map((value, index) => {
        const step = Math.min((index + 0.5) * curves.every, curves.steps);
        return [(300 * step) / Math.max(total, 1), 95 - (90 * (value - low)) / height];
    });
    if (at.length === 1) at.push([(300 * curves.steps) / Math.max(total, 1), at[0][1]]);
    return at.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" ");
}

/**
 * A length of time for people.
 *
 * @param {number} seconds
 */
export function duration(seconds) {
    if (seconds < 60) return `${Math.ceil(seconds)} s`;
    if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
    return `${Math.floor(seconds / 3600)} h ${Math.round((seconds % 3600) / 60)} min`;
}
