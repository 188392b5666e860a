/** Small numbers in Nodes 2.0, whose fields show, and keep, three digits unless they are told otherwise. */

const SHOWN = 3;

/**
 * Have a field show as many digits as its setting has.
 *
 * @param {any} node
 */
export function showAllDigits(node) {
    if (!node.constructor.nodeData?.category?.startsWith("CNS")) return;
    for (const { options } of node.widgets ?? [])
        if (options?.precision > SHOWN) options.maxFractionDigits = options.precision;
}
