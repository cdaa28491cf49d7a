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

const focused = (it) => it?.focus()
const chosen = ({ target }) => target.select()

const HERE = /^(localhost|.*\.localhost|127(\.\d+){3}|\[::1\])$/

/** Return the text that says who can join by an address with that host. */
export const whoJoins = (host) => (HERE.test(host) ? t('shareMore') : t('shareFar', { host }))

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
      <p>${whoJoins(location.hostname)}</p>
      <div class="row">
        <input ref=${this.field} type="text" readonly aria-label=${t('link')} value=${location.href}
          autofocus onFocus=${chosen} />
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

  /** Cancel stands where Delete stood: who clicks twice deletes nothing. */
  doubt() {
    return html`<div class="row" key="doubt">
      <button type="button" class="bad" onClick=${this.props.act.remove}>${t('really')}</button>
      <button type="button" class="quiet" ref=${focused} onClick=${() => this.setState({ sure: false })}>${t('cancel')}</button>
    </div>`
  }

  render({ act }, { sure }) {
    return html`<div>
      <form class="row" onSubmit=${this.rename}>
        <input type="text" name="title" maxlength="200" aria-label=${t('title')} defaultValue=${act.title()}
          autofocus onFocus=${chosen} />
        <button type="submit" class="main">${t('rename')}</button></form>
      <div class="row spread danger"><p>${t('removeMore')}</p>
        ${sure ? this.doubt() : html`<button type="button" class="bad" onClick=${() => this.setState({ sure: true })}>${t('remove')}</button>`}
      </div>
    </div>`
  }
}

function Doubt({ ui, act }) {
  const { count, does } = ui.doubt
  const goOn = () => {
    act.dialog(undefined)
    does()
  }
  return html`<div>
    <p>${t('takesBack', { n: count })}</p>
    <div class="row end">
      <button type="button" class="quiet" autofocus onClick=${() => act.dialog(undefined)}>${t('cancel')}</button>
      <button type="button" class="bad" onClick=${goOn}>${t('goOn')}</button></div>
  </div>`
}

const BODIES = { share: Share, manage: Manage, doubt: Doubt }
const TITLES = { share: 'share', manage: 'manage', doubt: 'doubt' }
