// One message of a person, or one answer of an agent with its thoughts, tool calls and questions.
import { fileAddress } from '../files.js'
import { Component, html } from '../html.js'
import { indentJson } from '../json.js'
import { measurements, textOf } from '../selectors.js'
import { formatNumber, formatTime, t } from '../words.js'
import { attachments } from './attachments.js'
import { textOfField } from './composer.js'
import { IconButton } from './icons.js'
import { Question } from './question.js'
import { personName } from './status.js'
import { Text } from './text.js'

export function UserMessage({ item, isMine, editing, canWrite, canFork, act }) {
  if (!item.text && item.parts?.length && item.parts.every(({ type }) => type === 'tool_result')) return null
  const name = isMine ? t('you') : personName(item.author)
  return html`<article class=${`asked ${item.status} ${isMine ? '' : 'other'}`} aria-label=${name}>
    ${!isMine && html`<h2>${name}</h2>`}
    ${editing ? html`<${Editor} item=${item} act=${act} />` : html`<div class="bubble">${item.text}${attachments(item.parts)}</div>`}
    <footer>${note(item, act)}
      ${
        item.id &&
        !editing &&
        html`<span class="actions">
        <${Copy} text=${item.text} act=${act} />
        ${canWrite && isMine && html`<${IconButton} icon="edit" label=${t('edit')} onClick=${() => act.edit(item.key)} />`}
        ${canFork && html`<${IconButton} icon="fork" label=${t('fork')} onClick=${() => act.fork(item.id)} />`}</span>`
      }
      ${item.ts && html`<time>${formatTime(item.ts)}</time>`}
    </footer>
  </article>`
}

function note(item, act) {
  if (item.status === 'sending') return html`<span>${t('sending')}</span>`
  if (item.status === 'withdrawn') return html`<span>${t('takenBack')}</span>`
  if (item.status !== 'refused') return null
  return html`<span class="failed">${t('notSent', { message: item.error })}</span>
    <button type="button" class="quiet" onClick=${() => act.retry(item)}>${t('retry')}</button>
    <button type="button" class="quiet" onClick=${() => act.rewrite(item)}>${t('edit')}</button>`
}

class Editor extends Component {
  field = { current: undefined }

  componentDidMount() {
    const field = this.field.current
    field.focus()
    field.setSelectionRange(field.value.length, field.value.length)
  }

  render({ item, act }) {
    const rows = Math.min(12, item.text.split('\n').length + 1)
    const save = () => act.save(item, textOfField(this.field.current) || item.text)
    const key = (event) => {
      if (event.key === 'Escape') act.edit(undefined)
      else if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) (event.preventDefault(), save())
    }
    return html`<div class="editor">
      <textarea ref=${this.field} aria-label=${t('editText')} rows=${rows} onKeyDown=${key}>${item.text}</textarea>
      <div class="row">
        <button type="button" class="quiet" onClick=${() => act.edit(undefined)}>${t('cancel')}</button>
        <button type="button" class="main" onClick=${save}>${t('save')}</button>
      </div>
    </div>`
  }
}

class Copy extends Component {
  copy = async () => {
    if (!(await this.props.act.copy(this.props.text))) return
    this.setState({ copied: true })
    setTimeout(() => this.setState({ copied: false }), 1500)
  }

  render(_, { copied }) {
    return html`<${IconButton} icon=${copied ? 'check' : 'copy'} label=${t(copied ? 'copied' : 'copy')} onClick=${this.copy} />`
  }
}

export function Answer({ item, canReply, canRegenerate, canFork, act }) {
  const running = item.state === 'running'
  const parts = item.parts.filter(({ kind }) => kind !== 'step')
  return html`<article class=${`answer ${item.state}`} aria-label=${item.agentId} aria-busy=${running}>
    <h2><span class="badge" aria-hidden="true">${item.agentId?.slice(0, 1).toUpperCase()}</span>${item.agentId}</h2>
    ${steps(item)}
    ${parts.map((part, index) => html`<${PARTS[part.kind]} key=${part.kind + part.id} part=${part} running=${running}
      isLast=${index === parts.length - 1} canReply=${canReply} act=${act} />`)}
    ${running && item.progress && progress(item.progress)}
    ${running && !item.progress && parts.at(-1)?.kind !== 'question' && html`<span class="pulse" aria-hidden="true"><i></i><i></i><i></i></span>`}
    ${ending(item)}
    <footer>${!running && actions(item, canRegenerate, canFork, act)}${figures(item)}</footer>
  </article>`
}

function steps({ parts, state }) {
  const list = parts.filter(({ kind }) => kind === 'step')
  return (
    list.length > 0 &&
    html`<ol class="steps">${list.map(({ id, done }) => html`<li key=${id} class=${done || state === 'done' ? 'done' : 'now'}>${id}</li>`)}</ol>`
  )
}

const progress = ({ value, message }) =>
  html`<div class="progress"><label><span>${message}</span><span>${formatNumber(value * 100)}%</span><progress max="1" value=${value}></progress></label></div>`

function ending({ state, stopReason, error, parts }) {
  if (error) return html`<p class="ending failed" role="note">${error.message}</p>`
  if (stopReason && stopReason !== 'end_turn') return html`<p class="ending">${t(stopReason)}</p>`
  return state === 'done' && !parts.length ? html`<p class="ending">${t('nothing')}</p>` : null
}

function actions(item, canRegenerate, canFork, act) {
  const text = textOf(item)
  const last = item.parts.findLast(({ kind }) => kind === 'text')
  return html`<span class="actions">
    ${text && html`<${Copy} text=${text} act=${act} />`}
    ${canRegenerate && html`<${IconButton} icon="again" label=${t('regenerate')} onClick=${() => act.regenerate(item)} />`}
    ${canFork && last && html`<${IconButton} icon="fork" label=${t('fork')} onClick=${() => act.fork(last.id)} />`}
  </span>`
}

function figures(item) {
  const values = measurements(item)
  if (!values) return null
  const { first, tokens, exact, input, rate } = values
  const about = (text) => (exact ? text : t('about', { text }))
  return html`<span class="figures">
    ${first !== undefined && html`<span>${t('first', { time: formatMs(first) })}</span>`}
    ${rate !== undefined && html`<span>${about(t('rate', { n: formatNumber(rate, rate < 10 ? 1 : 0) }))}</span>`}
    ${item.state === 'done' && html`<span>${about(t(tokens === 1 ? 'token' : 'tokens', { n: formatNumber(tokens) }))}</span>`}
    ${input !== undefined && html`<span>${t('input', { n: formatNumber(input) })}</span>`}
  </span>`
}

const formatMs = (ms) => (ms < 1000 ? `${formatNumber(Math.max(1, ms))} ms` : `${formatNumber(ms / 1000, 1)} s`)

// --- the parts of an answer -------------------------------------------------------------------------------------------

function Reasoning({ part, running, isLast }) {
  const seconds = (part.endedAt - part.startedAt) / 1000
  const title = running && isLast ? t('thinking') : seconds >= 1 ? t('thoughtFor', { n: formatNumber(seconds) }) : t('thought')
  return html`<details class="reasoning"><summary>${title}</summary><div class="pre">${part.text}</div></details>`
}

const STATES = { args: 'calling', running: 'running', done: 'done', failed: 'failed' }

function Tool({ part, running }) {
  const state = !running && (part.state === 'args' || part.state === 'running') ? 'cancelled' : part.state
  return html`<details class=${`tool ${state}`}>
    <summary>
      <span class="mark" aria-hidden="true"></span><span class="name">${part.name}</span>
      <span class="tag">${t(STATES[state] ?? state)}</span>
    </summary>
    ${part.args && html`<h3>${t('args')}</h3><pre tabindex="0">${indentJson(part.args)}</pre>`}
    ${part.result !== undefined && html`<h3>${t('result')}</h3><pre tabindex="0">${indentJson(part.result)}</pre>`}
    ${part.fileId && html`<p><a href=${fileAddress(part.fileId)} download>${t('fullResult', { size: `${formatNumber(part.size / 1024)} KiB` })}</a></p>`}
  </details>`
}

const Custom = ({ part }) =>
  html`<details class="tool done">
    <summary><span class="mark" aria-hidden="true"></span><span class="name">${part.name}</span></summary>
    <pre tabindex="0">${indentJson(JSON.stringify(part.value))}</pre>
  </details>`

const PARTS = { text: Text, reasoning: Reasoning, tool: Tool, custom: Custom, question: Question }
