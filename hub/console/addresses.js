/** Return the address of a path of the hub. This file is in `console/`, also if a proxy offers the hub under a path. */
export const hubAddress = (path) => new URL(`..${path}`, import.meta.url).href
