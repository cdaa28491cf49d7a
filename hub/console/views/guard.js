// If a message cannot be rendered, show it as plain text: an error in one message must not break the page.
import { Component, html } from '../html.js'
import { textOf } from '../selectors.js'
import { t } from '../words.js'

export class Guard extends Component {
  componentDidCatch(error) {
    console.error(error)
    this.setState({ hasFailed: true })
  }

  render({ item, children }, { hasFailed }) {
    if (!hasFailed) return children
    const { kind, agentId } = item
    return html`<article class=${kind === 'run' ? 'answer done' : 'asked'} aria-label=${kind === 'run' ? agentId : t('you')}>
      <p class="ending failed" role="note">${t('shownAsText')}</p>
      <div class="pre">${kind === 'run' ? textOf(item) : item.text}</div>
    </article>`
  }
}
