// The open session: what the hub says of it goes through reduce(), and what a person does goes to the hub.
import { cut } from './html.js'
import { EMPTY, isBusy, isWhole, reduce, textOf } from './session.js'
import { remember, remembered } from './store.js'
import { t } from './words.js'

const TYPING_MS = 2000 // between two "I am writing"
const QUIET_MS = 5000 // after which nobody is writing any more
const PAGE = 60 // messages of one request, where the hub gives as many
const DELETED = 'session_deleted'

/** *changed*: the list of sessions did; *removed*: messages are taken back; *loaded*: the session is whole; *deleted*: it
 *  is no more. */
export function talk(hub, ui, change, { changed, removed, loaded, deleted }) {
  let session
  let offs = []
  let typed = 0
  let quiet
  let walk = {} // backwards through the list of messages: `after` is the place where it goes on
  let taken = new Set() // ids of the messages that were taken back while this page was subscribed
  let whole = false
  let unsent = [] // messages in the composer that were sent, but never confirmed: { clientMsgId, text, agentId }

  function take(event) {
    change({ session: reduce(ui.session, event) })
    if (whole || !isWhole(ui.session)) return
    whole = true
    loaded()
  }

  /** Leave the session; messages that the hub has not confirmed become its draft again. */
  function close() {
    for (const off of offs.splice(0)) off()
    keepUnsent()
    session?.close()
    session = undefined
  }

  const bad = (text) => change({ notice: { text } })

  function open(sessionId) {
    close()
    ui.session = EMPTY
    whole = false
    walk = {}
    taken = new Set()
    unsent = JSON.parse(remembered(unsentOf(sessionId)) || '[]')
    session = hub.session(sessionId)
    offs = [
      session.on('event', hear),
      session.on('subscribed', subscribed),
      session.on('reset', (frame) => {
        walk = {}
        take({ ...frame, type: 'reset' })
      }),
      session.on('error', (error) => error.code !== DELETED && bad(error.message)), // that one is tried again
    ]
    change({})
  }

  /** From now on events come live; read the earlier ones backwards, a page at a time. */
  async function subscribed(frame) {
    const isFirst = ui.session.seq === 0
    take({ ...frame, type: 'subscribed', seq: undefined, head: frame.seq })
    if (!isFirst || frame.seq === 0) return
    const mine = (walk = {})
    try {
      await earlier()
    } catch (error) {
      if (mine !== walk) return
      bad(error.message)
      take({ type: 'earlier', messages: [], events: [], taken, from: frame.seq, more: true })
    }
  }

  function keepUnsent() {
    const sending = (ui.session?.items ?? []).filter(({ status }) => status === 'sending')
    if (!session || !sending.length) return
    const draft = [...sending.map(({ text }) => text), messageField()?.value].filter(Boolean).join('\n\n')
    remember(draftOf(session.sessionId), draft)
    const sent = sending.map(({ clientMsgId, text, agentId }) => ({ clientMsgId, text, agentId }))
    remember(unsentOf(session.sessionId), JSON.stringify([...unsent, ...sent]))
  }
  addEventListener('pagehide', keepUnsent)

  /** Take a message out of the draft if the hub has it, though its confirmation was lost. */
  function arrived({ type, clientMsgId }) {
    const one = type === 'user_message' && unsent.find((other) => other.clientMsgId === clientMsgId)
    if (!one) return
    forget(one)
    const before = remembered(draftOf(session.sessionId))
    const draft = before.replace(one.text, () => '').trimStart()
    remember(draftOf(session.sessionId), draft)
    const field = messageField()
    if (field?.value !== before) return // the field of another session, which is about to be replaced
    field.value = draft
    field.dispatchEvent(new Event('input'))
  }

  function forget(one) {
    unsent = unsent.filter((other) => other !== one)
    remember(unsentOf(session.sessionId), unsent.length ? JSON.stringify(unsent) : '')
  }

  function hear(event) {
    const live = event.seq > (ui.session.head ?? Infinity)
    take(event)
    arrived(event)
    if (event.type === 'typing') {
      clearTimeout(quiet)
      quiet = setTimeout(() => take({ type: 'quiet' }), QUIET_MS)
    } else if (event.type === 'error') {
      event.code === DELETED ? deleted() : bad(event.message)
      changed()
    } else if (event.type === 'draining') {
      change({ draining: true })
    } else if (event.type === 'run_finished') {
      if (!isBusy(ui.session)) ui.stopping = false
      if (live) tell(event)
    }
    if (event.type === 'message_removed') event.messageIds.forEach((id) => taken.add(id))
    if (live && event.type === 'message_removed') removed()
    if (live && (event.type === 'user_message' || event.type === 'run_finished')) changed()
  }

  /** Let screen readers hear an answer once it is whole. */
  function tell({ runId, agentId }) {
    const run = ui.session.items.findLast(({ kind, id }) => kind === 'run' && id === runId)
    if (run) change({ said: `${agentId}: ${cut(textOf(run), 2000) || t(run.stopReason ?? 'nothing')}` })
  }

  function chat(content) {
    // Sent before: with the same id the hub answers it once.
    const again = unsent.find(({ text, agentId }) => text === content && agentId === ui.agent)
    unsent.forEach(forget) // the composer holds none of them any more
    const chat = session.chat(content, { agent: ui.agent, clientMsgId: again?.clientMsgId })
    chat[Symbol.asyncIterator]().return() // the page hears the whole session, and needs no second copy of the answer
    const { clientMsgId } = chat
    take({ type: 'sending', clientMsgId, content, agentId: ui.agent })
    chat.accepted.then(
      (accepted) => take({ type: 'accepted', ...accepted, clientMsgId, seq: undefined }),
      (error) => take({ type: 'refused', clientMsgId, message: error.message }),
    )
  }

  /** Read the next older page: its messages, and the events between them, with the tool calls and thoughts. */
  function earlier() {
    const mine = walk
    if (mine.loading) return mine.loading
    take({ type: 'reading', reading: true })
    return (mine.loading = page(mine).finally(() => {
      mine.loading = undefined
      if (mine === walk) take({ type: 'reading', reading: false })
    }))
  }

  async function page(mine) {
    const { items, from: upto = ui.session.head } = ui.session
    const place = `/api/v1/sessions/${encodeURIComponent(session.sessionId)}`
    const known = new Set(items.flatMap((item) => (item.kind === 'user' ? [item.id] : item.messageIds)))
    if (mine.from !== upto) mine.after = undefined // items were dropped since then: begin at the newest again
    let some
    do {
      const after = mine.after ? `&after=${mine.after}` : ''
      some = await ask(`${place}/messages?order=desc&limit=${Math.min(PAGE, hub.limits.listSize)}${after}`)
      mine.after = some.next
    } while (mine.after && some.data.every(({ messageId }) => known.has(messageId)))
    const messages = some.data.reverse()
    const first = messages.find(({ role }) => role === 'user') ?? messages[0]
    const from = (first?.seq ?? 1) - 1
    const events = await eventsOf(place, from, first ? upto : from)
    if (mine !== walk) return
    mine.from = from
    events.forEach(arrived)
    take({ type: 'earlier', messages, events, taken, from, more: some.more })
  }

  /** Stop what is being answered, and where *queued* also what waits, which else goes on at once. */
  async function stop(queued) {
    change({ stopping: true })
    try {
      await session.send({ type: 'cancel', queued })
    } catch (error) {
      change({ stopping: false })
      if (error.code !== 'not_running') throw error // it has just ended by itself
    }
  }

  async function takeBack(run) {
    await session.cancel(run.runId)
    compose(run.asked?.text)
  }

  /** Put a text into the composer, before what is there. */
  function compose(text) {
    const field = messageField()
    field.value = [text, field.value].filter(Boolean).join('\n\n')
    field.dispatchEvent(new Event('input'))
    field.focus()
  }

  return {
    open,
    close,
    earlier,
    /** Begin a session with this one's messages up to one of them; return its id. */
    fork: async (messageId) => (await session.send({ type: 'fork', messageId })).sessionId,
    act: {
      chat,
      takeBack,
      stop: () => stop(false),
      stopAll: () => stop(true),
      /** Write a message that was not sent once more. */
      rewrite(item) {
        take({ type: 'forgotten', clientMsgId: item.clientMsgId })
        compose(item.text)
      },
      retry(item) {
        take({ type: 'forgotten', clientMsgId: item.clientMsgId })
        chat(item.text)
      },
      typing() {
        if (Date.now() - typed < TYPING_MS || ui.session.count < 2) return
        typed = Date.now()
        session.typing().catch(() => {}) // the others need not know
      },
      async save(item, message) {
        change({ editing: undefined })
        await session.send({ type: 'edit', messageId: item.id, message })
      },
      async regenerate(run) {
        const said = run.parts.findLast(({ kind }) => kind === 'text')
        const before = ui.session.items.slice(0, ui.session.items.indexOf(run)).findLast(({ kind }) => kind === 'user')
        await session.send({ type: 'regenerate', messageId: said?.id ?? before?.id })
      },
      reply: async (interruptId, status, payload) => session.send({ type: 'resume', interruptId, status, payload }),
    },
  }
}

/** Return the events of the log after the seq *after*, up to the seq *upto*. */
async function eventsOf(place, after, upto) {
  const events = []
  let at = after
  while (at < upto) {
    const { data, more } = await ask(`${place}/events?afterSeq=${at}`)
    events.push(...data)
    at = more ? data.at(-1).seq : upto
  }
  return events.filter(({ seq }) => seq <= upto)
}

export const draftOf = (sessionId) => `draft:${sessionId}`
const unsentOf = (sessionId) => `unsent:${sessionId}`
const messageField = () => document.getElementById('message')

export async function ask(address, options) {
  const answer = await fetch(address, options)
  const body = answer.status === 204 ? {} : await answer.json()
  if (!answer.ok) throw new Error(body.error)
  return body
}
