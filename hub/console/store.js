// What this tab remembers, where the browser lets it: its settings may forbid it, or its room be used up.

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
    // it lasts as long as the page
  }
}
