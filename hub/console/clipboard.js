// Copy text; also on a page from plain HTTP, where a browser has no navigator.clipboard.

/** Return true if the text was copied. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text)
    return true
  } catch {
    return copySelection(text)
  }
}

function copySelection(text) {
  const focus = document.activeElement
  const field = Object.assign(document.createElement('textarea'), { value: text, className: 'unseen' })
  const parent = document.querySelector('dialog[open]') ?? document.body // text behind an open dialog cannot be selected
  parent.append(field)
  field.select()
  try {
    return document.execCommand('copy')
  } finally {
    field.remove()
    focus?.focus()
  }
}
