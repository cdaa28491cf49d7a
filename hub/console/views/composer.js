// Where one writes: Enter sends, Shift+Enter breaks the line. What waits in the queue stands above it.
import { Component, html } from '../html.js'
import { isBusy, questions, waiting } from '../session.js'
import { remember, remembered } from '../store.js'
import { draftOf } from '../talk.js'
import { t } from '../words.js'
import { isText } from './ask.js'
import { Icon } from './icons.js'

/** What is sent of a field: no empty lines around it; the first line keeps its indentation, as that of code must. */
export const written = (field) => field.value.trimEnd().replace(/^(?:[^\S\n]*\n)+/, '')

const FINE = matchMedia('(pointer: fine)')

export class Composer extends Component {
  field = { current: undefined }
  state = { empty: true }

  componentDidMount() {
    const field = this.field.current
    field.value = remembered(draftOf(this.props.ui.sessionId))
    this.grown()
    if (FINE.matches) field.focus() // on a phone the keyboard would hide the page
  }

  grown = () => {
    const field = this.field.current
    field.style.height = 'auto'
    field.style.height = `${field.scrollHeight + 2}px`
    this.setState({ empty: !field.value.trim() })
  }

  /** The only open question, where a text answers it. */
  get asked() {
    const open = questions(this.props.ui.session)
    return open.length === 1 && isText(open[0]) ? open[0].id : undefined
  }

  input = () => {
    if (this.state.empty) this.meant = this.asked // what was begun before a question came is no answer to it
    this.grown()
    remember(draftOf(this.props.ui.sessionId), this.field.current.value)
    this.props.act.typing()
  }

  send = () => {
    const field = this.field.current
    const content = written(field)
    if (!content) return
    const { asked } = this
    if (asked && asked === this.meant) this.props.act.reply(asked, 'resolved', content)
    else this.props.act.chat(content)
    this.props.act.toEnd()
    field.value = ''
    this.input()
    field.focus()
  }

  // The button goes with the answer; on a phone the keyboard would hide the page.
  stop = () => {
    this.props.act.stop()
    if (FINE.matches) this.field.current.focus()
  }

  key = (event) => {
    // Enter also ends the choice of a Chinese character; that is not meant for us.
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing || event.keyCode === 229) return
    event.preventDefault()
    this.send()
  }

  render({ ui, act }, { empty }) {
    const waits = questions(ui.session).some(({ ask }) => ask.agentId === ui.agent) // the chosen agent waits for an answer
    const hint = this.asked ? 'answerHere' : waits ? 'answerAbove' : 'placeholder'
    return html`<div class="composer">
      <${Queue} ui=${ui} act=${act} />
      <textarea id="message" ref=${this.field} rows="1" aria-label=${t('message')} placeholder=${t(hint)}
        onInput=${this.input} onKeyDown=${this.key}></textarea>
      <div class="tools">
        <select aria-label=${t('agent')} value=${ui.agent} onChange=${(event) => act.choose(event.target.value)}>
          ${choices(ui)}
        </select>
        ${isBusy(ui.session) && html`<button type="button" class="stop" disabled=${ui.stopping} onClick=${this.stop}><${Icon} name="stop" />${t('stop')}</button>`}
        <button type="button" class="send" disabled=${empty} aria-label=${t('send')} title=${t('send')} onClick=${this.send}>
          <${Icon} name="send" />
        </button>
      </div>
    </div>`
  }
}

function choices({ agents, agent }) {
  const ids = agents.filter(({ status }) => status === 'ok').map(({ agentId }) => agentId)
  return (ids.includes(agent) ? ids : [agent, ...ids]).map(
    (id) => html`<option key=${id} value=${id} selected=${id === agent}>${id}</option>`,
  )
}

function Queue({ ui, act }) {
  const runs = waiting(ui.session)
  return (
    runs.length > 0 &&
    html`<div class="queue"><ul>${runs.map(
      (run) => html`<li key=${run.runId}>
    <span class="tag">${t('waitsFor', { name: run.agentId })}</span><span class="text">${run.asked?.text ?? t('anothers', { name: run.agentId })}</span>
    <button type="button" class="quiet" onClick=${() => act.takeBack(run)}>${t('takeBack')}</button></li>`,
    )}</ul>
    ${isBusy(ui.session) && html`<p>${t('nextAfter')} <button type="button" class="quiet" onClick=${act.stopAll}>${t('stopAll')}</button></p>`}</div>`
  )
}
