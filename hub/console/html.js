// How the page is written: html`<p>...</p>` makes the tree that `render` brings onto the page.
import { Component, h, render } from './vendor/preact.js'
import htm from './vendor/htm.js'

export const html = htm.bind(h)

/** Return the start of a text, of at most *most* code points, cut between two characters; a lone surrogate becomes U+FFFD. */
export function cut(text, most) {
  const points = [...text.slice(0, 2 * (most + 1))]
  if (points.length <= most) return text
  const units = points.slice(0, most).join('').length
  const { index } = new Intl.Segmenter().segment(text.slice(0, units + 2)).containing(units)
  return text.slice(0, index || units).toWellFormed()
}

export { Component, render }
