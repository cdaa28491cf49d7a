// The dialogs: share, rename and delete a session, and confirm that messages are taken back.
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
  dialog = { current: undefined }

  componentDidMount() {
    this.dialog.current.showModal() // the browser keeps the focus inside, and Escape closes the dialog
  }

  render({ title, close, children }) {
    return html`<dialog ref=${this.dialog} aria-label=${title} onClose=${close} onClick=${({ target }) => target === this.dialog.current && close()}>
      <div class="sheet">
        <div class="row spread"><h2>${title}</h2><${IconButton} icon="close" label=${t('close')} onClick=${close} /></div>
        ${children}
      </div>
    </dialog>`
  }
}

const focus = (element) => element?.focus()
const selectAll = ({ target }) => target.select()

const LOCAL_HOST = /^(localhost|.*\.localhost|127(\.\d+){3}|\[::1\])$/

/** Return the text about the people who can join by an address with this host. */
export const shareText = (host) => (LOCAL_HOST.test(host) ? t('shareLocal') : t('shareNetwork', { host }))

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
      <p>${shareText(location.hostname)}</p>
      <div class="row">
        <input ref=${this.field} type="text" readonly aria-label=${t('link')} value=${location.href}
          autofocus onFocus=${selectAll} />
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

  /** Ask once more. Cancel is where Delete was: a double click deletes nothing. */
  confirmation() {
    return html`<div class="row" key="confirmation">
      <button type="button" class="bad" onClick=${this.props.act.remove}>${t('confirmDelete')}</button>
      <button type="button" class="quiet" ref=${focus} onClick=${() => this.setState({ isConfirming: false })}>${t('cancel')}</button>
    </div>`
  }

  render({ act }, { isConfirming }) {
    return html`<div>
      <form class="row" onSubmit=${this.rename}>
        <input type="text" name="title" maxlength="200" aria-label=${t('title')} defaultValue=${act.title()}
          autofocus onFocus=${selectAll} />
        <button type="submit" class="main">${t('rename')}</button></form>
      <div class="row spread danger"><p>${t('deleteHint')}</p>
        ${isConfirming ? this.confirmation() : html`<button type="button" class="bad" onClick=${() => this.setState({ isConfirming: true })}>${t('remove')}</button>`}
      </div>
    </div>`
  }
}

function Confirm({ ui, act }) {
  const { count, action } = ui.confirmation
  const run = () => {
    act.dialog(undefined)
    action()
  }
  return html`<div>
    <p>${t('confirmText', { n: count })}</p>
    <div class="row end">
      <button type="button" class="quiet" autofocus onClick=${() => act.dialog(undefined)}>${t('cancel')}</button>
      <button type="button" class="bad" onClick=${run}>${t('confirmButton')}</button></div>
  </div>`
}

const BODIES = { share: Share, manage: Manage, confirm: Confirm }
const TITLES = { share: 'share', manage: 'manage', confirm: 'confirmTitle' }
