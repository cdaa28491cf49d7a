// Store text for this tab, if the browser can: its settings may forbid that, or its storage be full.

export function remembered(key) {
  try {
    return sessionStorage.getItem(key) ?? ''
  } catch {
    return ''
  }
}

export function remember(key, text) {
  try {
    if (text) sessionStorage.setItem(key, text)
    else sessionStorage.removeItem(key)
  } catch {
    // the text lasts only as long as the page
  }
}
