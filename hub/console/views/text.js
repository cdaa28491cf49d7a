// Show a text as Markdown; while it grows, its finished blocks are not made again.
import { Component, html } from '../html.js'
import { grow } from '../markdown.js'
import { t } from '../words.js'

export class Text extends Component {
  shouldComponentUpdate({ part }) {
    return part.text !== this.props.part.text
  }

  render({ part }) {
    this.grown = grow(part.text, this.grown)
    return html`<div class="md">${this.grown.blocks}${attached(part.parts)}</div>`
  }
}

export const attached = (parts) =>
  parts
    ?.filter(({ type }) => type !== 'text')
    .map(
      (part, index) =>
        html`<span class="tag" key=${index}>${t('attachment')}: ${part.filename ?? part.source?.mimeType ?? part.type}</span>`,
    )
