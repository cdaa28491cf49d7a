// Store texts for this browser tab. A browser's settings may forbid that, and its storage may be full.

/** Return the stored text, '' if there is none. */
export function load(key) {
  try {
    return sessionStorage.getItem(key) ?? ''
  } catch {
    return ''
  }
}

/** Delete all texts. */
export function clear() {
  try {
    sessionStorage.clear()
  } catch {
    // nothing is stored
  }
}

/** Store a text; '' deletes it. */
export function store(key, text) {
  try {
    if (text) sessionStorage.setItem(key, text)
    else sessionStorage.removeItem(key)
  } catch {
    // without storage the text lasts as long as the page
  }
}
