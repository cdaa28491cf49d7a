// The field for messages: Enter sends, Shift+Enter starts a new line. Queued messages are shown above the field.
import { draftKey } from '../conversation.js'
import { Component, html } from '../html.js'
import { lockReason } from '../rights.js'
import { isBusy, openQuestions, queuedRuns } from '../selectors.js'
import { load, store } from '../store.js'
import { t } from '../words.js'
import { AttachButton, ChosenFiles } from './attachments.js'
import { Icon } from './icons.js'
import { takesText } from './question.js'

/** Return the text of a field without empty lines around it. The first line keeps its indentation: it may be code. */
export const textOfField = (field) => field.value.trimEnd().replace(/^(?:[^\S\n]*\n)+/, '')

const MOUSE = matchMedia('(pointer: fine)')

export class Composer extends Component {
  field = { current: undefined }
  state = { empty: true }

  componentDidMount() {
    const field = this.field.current
    field.value = load(draftKey(this.props.ui.sessionId))
    this.resize()
    if (MOUSE.matches) field.focus() // on a phone the keyboard would cover the page
  }

  resize = () => {
    const field = this.field.current
    field.style.height = 'auto'
    field.style.height = `${field.scrollHeight + 2}px`
    this.setState({ empty: !field.value.trim() })
  }

  /** Return the id of the question that the field answers: the only open one, if its answer is a text. */
  get questionId() {
    const open = openQuestions(this.props.ui.session)
    return open.length === 1 && takesText(open[0]) ? open[0].id : undefined
  }

  input = () => {
    if (this.state.empty) this.startQuestionId = this.questionId // a text that was begun before a question is no answer
    this.resize()
    store(draftKey(this.props.ui.sessionId), this.field.current.value)
    this.props.act.typing()
  }

  send = () => {
    const field = this.field.current
    const content = textOfField(field)
    const { files } = this.props.ui
    if (!content && !files.length) return
    const { questionId } = this
    if (questionId && questionId === this.startQuestionId && !files.length) this.props.act.reply(questionId, 'resolved', content)
    else this.props.act.chat(content, files)
    this.props.act.scrollToEnd()
    field.value = ''
    this.input()
    field.focus()
  }

  // The button disappears with the answer, so the focus moves; on a phone the keyboard would cover the page.
  stop = () => {
    this.props.act.stop()
    if (MOUSE.matches) this.field.current.focus()
  }

  key = (event) => {
    // With an input method, Enter also confirms a Chinese character.
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing || event.keyCode === 229) return
    event.preventDefault()
    this.send()
  }

  /** Take files that are pasted or dropped. A paste of text stays as it is. */
  take = (event) => {
    const { files } = event.clipboardData ?? event.dataTransfer
    if (!files.length) return
    event.preventDefault()
    this.props.act.attach([...files])
  }

  render({ ui, act }, { empty }) {
    const isAgentWaiting = openQuestions(ui.session).some(({ question }) => question.agentId === ui.agent)
    const locked = lockReason(ui)
    const hint = this.questionId ? 'answerHere' : isAgentWaiting ? 'answerAbove' : 'placeholder'
    return html`<div class=${locked ? 'composer locked' : 'composer'} onPaste=${locked ? undefined : this.take}
      onDrop=${locked ? undefined : this.take} onDragOver=${locked ? undefined : (event) => event.preventDefault()}>
      <${Queue} ui=${ui} act=${act} />
      <${ChosenFiles} files=${ui.files} act=${act} />
      ${locked && html`<p id="locked">${t(locked)}</p>`}
      <textarea id="message" ref=${this.field} rows="1" aria-label=${t('message')} placeholder=${locked ? '' : t(hint)}
        disabled=${!!locked} aria-describedby=${locked && 'locked'} onInput=${this.input} onKeyDown=${this.key}></textarea>
      ${!locked && this.tools(ui, act, empty)}
    </div>`
  }

  tools(ui, act, empty) {
    return html`<div class="tools">
        <select aria-label=${t('agent')} value=${ui.agent} onChange=${(event) => act.choose(event.target.value)}>
          ${agentOptions(ui)}
        </select>
        <${AttachButton} act=${act} />
        ${isBusy(ui.session) && html`<button type="button" class="stop" disabled=${ui.stopping} onClick=${this.stop}><${Icon} name="stop" />${t('stop')}</button>`}
        <button type="button" class="send" disabled=${empty && !ui.files.length} aria-label=${t('send')} title=${t('send')} onClick=${this.send}>
          <${Icon} name="send" />
        </button>
      </div>`
  }
}

function agentOptions({ agents, agent }) {
  const ids = agents.filter(({ status }) => status === 'ok').map(({ agentId }) => agentId)
  return (ids.includes(agent) ? ids : [agent, ...ids]).map(
    (id) => html`<option key=${id} value=${id} selected=${id === agent}>${id}</option>`,
  )
}

function Queue({ ui, act }) {
  const isLocked = lockReason(ui) !== undefined
  const runs = queuedRuns(ui.session)
  return (
    runs.length > 0 &&
    html`<div class="queue"><ul>${runs.map(
      (run) => html`<li key=${run.runId}>
    <span class="tag">${t('waitsFor', { name: run.agentId })}</span><span class="text">${run.userMessage?.text || t('queuedMessage', { name: run.agentId })}</span>
    ${!isLocked && html`<button type="button" class="quiet" onClick=${() => act.takeBack(run)}>${t('takeBack')}</button>`}</li>`,
    )}</ul>
    ${!isLocked && isBusy(ui.session) && html`<p>${t('nextAfter')} <button type="button" class="quiet" onClick=${act.stopAll}>${t('stopAll')}</button></p>`}</div>`
  )
}
