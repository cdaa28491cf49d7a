// A text as Markdown. While the text grows, its finished blocks stay the same.
import { Component, html } from '../html.js'
import { parse } from '../markdown.js'
import { t } from '../words.js'

export class Text extends Component {
  shouldComponentUpdate({ part }) {
    return part.text !== this.props.part.text
  }

  render({ part }) {
    this.parsed = parse(part.text, this.parsed)
    return html`<div class="md">${this.parsed.blocks}${attachments(part.parts)}</div>`
  }
}

export const attachments = (parts) =>
  parts
    ?.filter(({ type }) => !['text', 'tool_call', 'tool_result'].includes(type)) // the answers show tool calls and results
    .map(
      (part, index) =>
        html`<span class="tag" key=${index}>${t('attachment')}: ${part.filename ?? part.source?.mimeType ?? part.type}</span>`,
    )
