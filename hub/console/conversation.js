// The open session: events of the hub go through reduce(), and actions of the person go to the hub.
import { filesOf, remainingParts } from './files.js'
import { cut } from './html.js'
import { fetchJson } from './http.js'
import { isBusy, isLoaded, textOf } from './selectors.js'
import { EMPTY, reduce } from './session.js'
import { load, store } from './store.js'
import { t } from './words.js'

const TYPING_INTERVAL_MS = 2000 // between two `typing` commands
const TYPING_TIMEOUT_MS = 5000 // after the last `typing` notice
const PAGE_SIZE = 60 // messages, if the hub allows as many
const DELETED = 'session_deleted'
const MISSING = 'unknown_session' // with sign-in, also a session of which the person is no member

/**
 * Make the object that opens sessions, one after another.
 *
 * It calls *onChange* if the list of sessions has changed, *onRemoved* if messages are taken back, *onLoaded* when the
 * messages of a session are loaded, *onDeleted* when the session is deleted, and *onRole* when the person has another
 * role in it, or undefined for none.
 */
export function makeConversation(hub, ui, change, { onChange, onRemoved, onLoaded, onDeleted, onRole }) {
  let session
  let removers = [] // of the listeners
  let typingSentAt = 0
  let typingTimer
  let reader = {} // reads older messages, page by page: `after` is the cursor in the list of messages
  let removedIds = new Set() // of the messages that were taken back while this page was subscribed
  let wasLoaded = false
  let unsent = [] // messages in the composer that were sent, but never confirmed: { clientMsgId, text, agentId }

  function apply(event) {
    change({ session: reduce(ui.session, event) })
    if (wasLoaded || !isLoaded(ui.session)) return
    wasLoaded = true
    onLoaded()
  }

  /** Close the session; messages that the hub has not confirmed become its draft again. */
  function close() {
    for (const remove of removers.splice(0)) remove()
    storeUnsent()
    session?.close()
    session = undefined
  }

  const showError = (text) => change({ notice: { text } })

  function open(sessionId) {
    close()
    ui.session = EMPTY
    wasLoaded = false
    reader = {}
    removedIds = new Set()
    unsent = JSON.parse(load(unsentKey(sessionId)) || '[]')
    session = hub.session(sessionId)
    removers = [
      session.on('event', receive),
      session.on('subscribed', start),
      session.on('reset', (frame) => {
        reader = {}
        apply({ ...frame, type: 'reset' })
      }),
      session.on('error', refuse),
    ]
    change({})
  }

  function refuse({ code, message }) {
    if (code === MISSING) miss('missing')
    else if (code !== DELETED) showError(message) // a deleted session is retryable
  }

  /** Apply that the person cannot read the session, or cannot any more. */
  function miss(type) {
    const wasRemoved = ui.session.isRemoved
    apply({ type })
    if (!wasRemoved && ui.session.isRemoved) onRole(undefined)
  }

  /** Apply the subscription: from now on events come live. Load the page of messages before them. */
  async function start(frame) {
    const isFirst = ui.session.seq === 0
    if (ui.session.isMissing) onChange() // a message of this person has created the session
    apply({ ...frame, type: 'subscribed', seq: undefined, head: frame.seq })
    if (!isFirst || frame.seq === 0) return
    const ownReader = (reader = {})
    try {
      await loadEarlier()
    } catch (error) {
      if (ownReader !== reader) return
      showError(error.message)
      apply({ type: 'earlier', messages: [], events: [], removedIds, from: frame.seq, more: true })
    }
  }

  function storeUnsent() {
    const sending = (ui.session?.items ?? []).filter(({ status }) => status === 'sending')
    if (!session || !sending.length) return
    store(draftKey(session.sessionId), join(...sending.map(({ text }) => text), messageField()?.value))
    // Not a message with files: with the same text alone, it would be another message under the same id.
    const added = sending.filter(({ files }) => !files.length).map(({ clientMsgId, text, agentId }) => ({ clientMsgId, text, agentId }))
    store(unsentKey(session.sessionId), JSON.stringify([...unsent, ...added]))
  }
  addEventListener('pagehide', storeUnsent)

  /** Remove a message from the draft if the hub has it, although its confirmation was lost. */
  function removeFromDraft({ type, clientMsgId }) {
    const message = type === 'user_message' && unsent.find((entry) => entry.clientMsgId === clientMsgId)
    if (!message) return
    forgetUnsent(message)
    const before = load(draftKey(session.sessionId))
    const draft = before.replace(message.text, () => '').trimStart()
    store(draftKey(session.sessionId), draft)
    const field = messageField()
    if (field?.value !== before) return // it is still the field of the session before
    field.value = draft
    field.dispatchEvent(new Event('input'))
  }

  function forgetUnsent(message) {
    unsent = unsent.filter((entry) => entry !== message)
    store(unsentKey(session.sessionId), unsent.length ? JSON.stringify(unsent) : '')
  }

  function receive(event) {
    const isLive = event.seq > (ui.session.head ?? Infinity)
    const { role } = ui.session
    apply(event)
    if (ui.session.role !== role) onRole(ui.session.role)
    removeFromDraft(event)
    if (event.type === 'typing') {
      clearTimeout(typingTimer)
      typingTimer = setTimeout(() => apply({ type: 'quiet' }), TYPING_TIMEOUT_MS)
    } else if (event.type === 'error') {
      if (event.code === DELETED) onDeleted()
      else if (event.code === MISSING) miss('removed')
      else showError(event.message)
      onChange()
    } else if (event.type === 'draining') {
      change({ draining: true })
    } else if (event.type === 'run_finished') {
      if (!isBusy(ui.session)) ui.stopping = false
      if (isLive) announce(event)
    }
    if (event.type === 'message_removed') event.messageIds.forEach((id) => removedIds.add(id))
    if (isLive && event.type === 'message_removed') onRemoved()
    if (isLive && (event.type === 'user_message' || event.type === 'run_finished')) onChange()
  }

  /** Let screen readers read a complete answer. */
  function announce({ runId, agentId }) {
    const run = ui.session.items.findLast(({ kind, id }) => kind === 'run' && id === runId)
    if (run) change({ announcement: `${agentId}: ${cut(textOf(run), 2000) || t(run.stopReason ?? 'nothing')}` })
  }

  function sendChat(content, files) {
    // If the message was sent before, send it with the same id: the hub answers it once.
    const before = !files.length && unsent.find(({ text, agentId }) => text === content && agentId === ui.agent)
    unsent.forEach(forgetUnsent) // none of them is in the composer any more
    const chat = session.chat(content, { agent: ui.agent, clientMsgId: before?.clientMsgId, files })
    chat[Symbol.asyncIterator]().return() // the page has all events of the session, and needs no copy for the chat
    const { clientMsgId } = chat
    apply({ type: 'sending', clientMsgId, content, agentId: ui.agent, files })
    change({ files: [] })
    chat.accepted.then(
      (accepted) => apply({ type: 'accepted', ...accepted, clientMsgId, seq: undefined }),
      (error) => apply({ type: 'refused', clientMsgId, message: error.message }),
    )
  }

  /** Load the next older page: its messages, and the events between them with the tool calls and thoughts. */
  function loadEarlier() {
    const ownReader = reader
    if (ownReader.loading) return ownReader.loading
    apply({ type: 'reading', reading: true })
    return (ownReader.loading = loadPage(ownReader).finally(() => {
      ownReader.loading = undefined
      if (ownReader === reader) apply({ type: 'reading', reading: false })
    }))
  }

  async function loadPage(ownReader) {
    const { items, from: end = ui.session.head } = ui.session
    const address = `/api/v1/sessions/${encodeURIComponent(session.sessionId)}`
    const loadedIds = new Set(items.flatMap((item) => (item.kind === 'user' ? [item.id] : item.messageIds)))
    if (ownReader.from !== end) ownReader.after = undefined // items were dropped since then: begin at the newest again
    let page
    do {
      const after = ownReader.after ? `&after=${ownReader.after}` : ''
      page = await fetchJson(`${address}/messages?order=desc&limit=${Math.min(PAGE_SIZE, hub.limits.listSize)}${after}`)
      ownReader.after = page.next
    } while (ownReader.after && page.data.every(({ messageId }) => loadedIds.has(messageId)))
    const messages = page.data.reverse()
    const first = messages.find(({ role }) => role === 'user') ?? messages[0]
    const from = (first?.seq ?? 1) - 1
    const events = await loadEvents(address, from, first ? end : from)
    if (ownReader !== reader) return
    ownReader.from = from
    events.forEach(removeFromDraft)
    apply({ type: 'earlier', messages, events, removedIds, from, more: page.more })
  }

  /** Stop the active answers; with *queued*, the queued messages, too. */
  async function stop(queued) {
    change({ stopping: true })
    try {
      await session.send({ type: 'cancel', queued })
    } catch (error) {
      change({ stopping: false })
      if (error.code !== 'not_running') throw error // else the answer ended at the same moment
    }
  }

  async function takeBack(run) {
    const { sessionId } = session
    await session.cancel(run.runId)
    const { text, parts } = run.userMessage ?? {}
    if (session?.sessionId === sessionId) prependToDraft(text, filesOf(parts))
    else store(draftKey(sessionId), join(text, load(draftKey(sessionId)))) // the person has left the session meanwhile
  }

  /** Put a text and files into the composer, before those that are there. */
  function prependToDraft(text, files) {
    change({ files: [...files, ...ui.files] })
    const field = messageField()
    field.value = join(text, field.value)
    field.dispatchEvent(new Event('input'))
    field.focus()
  }

  return {
    open,
    close,
    loadEarlier,
    /** Start a session with the messages of this one up to *messageId*; return its id. */
    fork: async (messageId) => (await session.send({ type: 'fork', messageId })).sessionId,
    act: {
      chat: sendChat,
      takeBack,
      stop: () => stop(false),
      stopAll: () => stop(true),
      /** Move a message that was not sent into the composer. */
      rewrite(item) {
        apply({ type: 'forgotten', clientMsgId: item.clientMsgId })
        prependToDraft(item.text, item.files)
      },
      retry(item) {
        apply({ type: 'forgotten', clientMsgId: item.clientMsgId })
        sendChat(item.text, item.files)
      },
      attach: (files) => change({ files: [...ui.files, ...files] }),
      detach: (index) => change({ files: ui.files.toSpliced(index, 1) }),
      typing() {
        if (Date.now() - typingSentAt < TYPING_INTERVAL_MS || ui.session.count < 2) return
        typingSentAt = Date.now()
        session.typing().catch(() => {}) // no harm if it is lost
      },
      async save(item, message) {
        change({ editing: undefined })
        await session.send({ type: 'edit', messageId: item.id, message, parts: remainingParts(item.parts) })
      },
      async regenerate(run) {
        const answer = run.parts.findLast(({ kind }) => kind === 'text')
        const before = ui.session.items.slice(0, ui.session.items.indexOf(run)).findLast(({ kind }) => kind === 'user')
        await session.send({ type: 'regenerate', messageId: answer?.id ?? before?.id })
      },
      reply: async (interruptId, status, payload) => session.send({ type: 'resume', interruptId, status, payload }),
    },
  }
}

/** Return the events of the log after the seq *after*, up to the seq *end*. */
async function loadEvents(address, after, end) {
  const events = []
  let seq = after
  while (seq < end) {
    const { data, more } = await fetchJson(`${address}/events?afterSeq=${seq}`)
    events.push(...data)
    seq = more ? data.at(-1).seq : end
  }
  return events.filter((event) => event.seq <= end)
}

export const draftKey = (sessionId) => `draft:${sessionId}`
const unsentKey = (sessionId) => `unsent:${sessionId}`
const join = (...texts) => texts.filter(Boolean).join('\n\n')
const messageField = () => document.getElementById('message')
