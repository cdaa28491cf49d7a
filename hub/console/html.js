// How the page is written: html`<p>...</p>` makes the tree that `render` brings onto the page.
import { Component, h, render } from './vendor/preact.js'
import htm from './vendor/htm.js'

export const html = htm.bind(h)
/** The start of a text, of at most so many UTF-16 units, that ends where a character does; a lone half is marked. */
export function cut(text, most) {
  if (text.length <= most) return text
  const { index } = new Intl.Segmenter().segment(text.slice(0, most + 2)).containing(most)
  return text.slice(0, index || most).toWellFormed()
}

export { Component, render }
