// A text as Markdown. While the text grows, its finished blocks stay the same.
import { Component, html } from '../html.js'
import { parse } from '../markdown.js'
import { attachments } from './attachments.js'

export class Text extends Component {
  shouldComponentUpdate({ part }) {
    return part.text !== this.props.part.text || part.parts !== this.props.part.parts
  }

  render({ part }) {
    this.parsed = parse(part.text, this.parsed)
    return html`<div class="md">${this.parsed.blocks}${attachments(part.parts)}</div>`
  }
}
