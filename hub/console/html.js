// The template language of the page: html`<p>...</p>` makes a tree, and render() puts the tree onto the page.
import { Component, h, render } from './vendor/preact.js'
import htm from './vendor/htm.js'

export const html = htm.bind(h)

/**
 * Return the beginning of a text, of at most *length* code points.
 *
 * The cut is between two characters as people see them. A lone surrogate becomes U+FFFD.
 */
export function cut(text, length) {
  const points = [...text.slice(0, 2 * (length + 1))]
  if (points.length <= length) return text
  const units = points.slice(0, length).join('').length
  const { index } = new Intl.Segmenter().segment(text.slice(0, units + 2)).containing(units)
  return text.slice(0, index || units).toWellFormed()
}

export { Component, render }
