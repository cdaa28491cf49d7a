const ID = /^[A-Za-z0-9._:@-]{1,128}$/

/**
 * Return true if the hub accepts this text as an id: see hub/ids.py.
 * @param {string} text
 */
export const isId = (text) => ID.test(text)

/** Make a random id. */
export function newId() {
  if (crypto.randomUUID) return crypto.randomUUID() // browsers have it only on pages from https or localhost
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, '0')).join('')
}
