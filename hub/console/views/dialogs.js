// The dialogs: share, rename and delete a session, and confirm that messages are taken back.
import { Component, html } from '../html.js'
import { mayManage, mayWrite } from '../rights.js'
import { t } from '../words.js'
import { IconButton } from './icons.js'
import { Share } from './share.js'

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

  render({ ui, act }, { isConfirming }) {
    return html`<div>
      ${mayWrite(ui) && html`<form class="row" onSubmit=${this.rename}>
        <input type="text" name="title" maxlength="200" aria-label=${t('title')} defaultValue=${act.title()}
          autofocus onFocus=${selectAll} />
        <button type="submit" class="main">${t('rename')}</button></form>`}
      ${mayManage(ui) && html`<div class="row spread danger"><p>${t('deleteHint')}</p>
        ${isConfirming ? this.confirmation() : html`<button type="button" class="bad" onClick=${() => this.setState({ isConfirming: true })}>${t('remove')}</button>`}
      </div>`}
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
