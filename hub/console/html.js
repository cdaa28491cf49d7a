// How the page is written: html`<p>...</p>` makes the tree that `render` brings onto the page.
import { Component, h, render } from './vendor/preact.js'
import htm from './vendor/htm.js'

export const html = htm.bind(h)
/** Return the start of a text, of at most *most* UTF-16 units, cut between two characters; a lone surrogate becomes U+FFFD. */
export function cut(text, most) {
  if (text.length <= most) return text
  const { index } = new Intl.Segmenter().segment(text.slice(0, most + 2)).containing(most)
  return text.slice(0, index || most).toWellFormed()
}

export { Component, render }
