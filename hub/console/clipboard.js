// Copy text, also on a page opened by plain HTTP, where a browser has no navigator.clipboard.

export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text)
    return true
  } catch {
    return copySelected(text)
  }
}

function copySelected(text) {
  const focused = document.activeElement
  const field = Object.assign(document.createElement('textarea'), { value: text, className: 'unseen' })
  const place = document.querySelector('dialog[open]') ?? document.body // nothing behind an open dialog can be selected
  place.append(field)
  field.select()
  try {
    return document.execCommand('copy')
  } finally {
    field.remove()
    focused?.focus()
  }
}
