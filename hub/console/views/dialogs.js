// What opens over the page: sharing a session, naming it, deleting it.
import { Component, html } from '../html.js'
import { t } from '../words.js'
import { Icon, IconButton } from './icons.js'

export function Dialogs({ ui, act }) {
  const Body = BODIES[ui.dialog]
  return (
    Body &&
    html`<${Dialog} title=${t(TITLES[ui.dialog])} close=${() => act.dialog(undefined)}><${Body} ui=${ui} act=${act} /><//>`
  )
}

class Dialog extends Component {
  box = { current: undefined }

  componentDidMount() {
    this.box.current.showModal() // the browser keeps the focus in it, and Escape closes it
  }

  render({ title, close, children }) {
    return html`<dialog ref=${this.box} aria-label=${title} onClose=${close} onClick=${({ target }) => target === this.box.current && close()}>
      <div class="sheet">
        <div class="row spread"><h2>${title}</h2><${IconButton} icon="close" label=${t('close')} onClick=${close} /></div>
        ${children}
      </div>
    </dialog>`
  }
}

class Share extends Component {
  field = { current: undefined }

  copy = async () => {
    const field = this.field.current
    field.select()
    this.setState({ copied: await this.props.act.copy(field.value) })
  }

  render({ ui }, { copied }) {
    const { count } = ui.session
    return html`<div>
      <p>${t('shareMore')}</p>
      <div class="row">
        <input ref=${this.field} type="text" readonly aria-label=${t('link')} value=${location.href}
          onFocus=${({ target }) => target.select()} />
        <button type="button" class="main" onClick=${this.copy}>${t(copied ? 'copied' : 'copy')}</button></div>
      <p class="people"><${Icon} name="people" />${count > 1 ? t('people', { n: count }) : t('alone')}</p>
    </div>`
  }
}

class Manage extends Component {
  rename = (event) => {
    event.preventDefault()
    this.props.act.rename(event.target.elements.title.value.trim())
  }

  render({ act }, { sure }) {
    return html`<div>
      <form class="row" onSubmit=${this.rename}>
        <input type="text" name="title" maxlength="200" aria-label=${t('title')} value=${act.title()} />
        <button type="submit" class="main">${t('rename')}</button></form>
      <div class="row spread danger"><p>${t('removeMore')}</p>
        <button type="button" class="bad" onClick=${() => (sure ? act.remove() : this.setState({ sure: true }))}>
          ${t(sure ? 'really' : 'remove')}
        </button></div>
    </div>`
  }
}

const BODIES = { share: Share, manage: Manage }
const TITLES = { share: 'share', manage: 'manage' }
