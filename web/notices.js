/** What the server wants to be known now: see `cns_core/host/notices.py`. */

import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";

const LIFE = 12000; // milliseconds

/** Show each as the page shows its own. */
export function showNotices() {
    api.addEventListener("cns.notice", (/** @type {CustomEvent<{text: string, severity: string}>} */ event) => {
        const { text: detail, severity } = event.detail;
        app.extensionManager.toast.add({ severity, summary: "CNS", detail, life: LIFE });
    });
}
