// How the page is written: html`<p>...</p>` makes the tree that `render` brings onto the page.
import { Component, h, render } from './vendor/preact.js'
import htm from './vendor/htm.js'

export const html = htm.bind(h)
export { Component, render }
