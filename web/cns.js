/** Registers the pack's parts of the page. Without them every node works as before. */

import { app } from "../../scripts/app.js";
import { addCompletion } from "./completion.js";
import { showAllDigits } from "./digits.js";
import { trackFields } from "./fields.js";
import { addLibrary } from "./library.js";
import { addLiveWidget, catchUp, watch } from "./live.js";
import { showOwnSettings } from "./method.js";
import { showNotices } from "./notices.js";
import { addStyle } from "./page.js";
import { markAll, markRelevant } from "./relevant.js";
import { readTexts } from "./texts.js";

app.registerExtension({
    name: "CNS",

    async init() {
        await readTexts();
    },

    async setup() {
        addStyle();
        trackFields();
        addCompletion();
        addLibrary();
        showNotices();
        await watch();
    },

    /** @param {any} node */
    nodeCreated(node) {
        addLiveWidget(node);
        showAllDigits(node);
        showOwnSettings(node);
        markRelevant(node);
    },

    /** A graph was opened: perhaps it is the one that runs. */
    afterConfigureGraph() {
        markAll(app.rootGraph ?? app.graph);
        return catchUp();
    },
});
