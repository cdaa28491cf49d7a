// What a session looks like, as a pure function over what the hub says of it: reduce(state, event) -> state.
//
// items: what people wrote and what agents answered, in the order of the log. An item is replaced when it changes,
// never altered, so a view can compare it with `===`. As new items come, the oldest finished ones are dropped, so that an
// event costs the same in a session of any length. They can be read again, as older messages.

const ROOM = 200 // items; more if older ones were read

export const EMPTY = {
  items: [],
  room: ROOM,
  active: [],
  queue: [],
  count: 1,
  typing: undefined,
  seq: 0,
  head: undefined, // the seq of the log when this page subscribed
  from: undefined, // events up to this seq are not in the items; undefined until the newest page was read
  more: false, // older messages than these are kept
  reading: false, // older messages are being read: until they are here drop no item, or there would be a gap
}

/** Return whether everything up to `head` is here, or can be read as older messages. */
export const isWhole = ({ seq, head, from }) => seq >= head && from !== undefined

export function reduce(state, event) {
  const next = STEPS[event.type]?.(state, event) ?? state
  return event.seq === undefined ? next : { ...next, seq: event.seq }
}

/** How fast an answer came: exact where the model counted its tokens, else about. */
export function figures(run) {
  if (run.startedAt === undefined || run.chars === 0) return undefined
  const first = run.firstAt === undefined ? undefined : run.firstAt - run.startedAt
  const tokens = run.usage?.outputTokens ?? Math.max(1, Math.round(run.weight))
  const ms = run.lastAt - (run.firstAt ?? run.startedAt)
  return {
    first,
    tokens,
    exact: run.usage?.outputTokens !== undefined,
    input: run.usage?.inputTokens,
    rate: ms > 0 ? (tokens * 1000) / ms : undefined,
  }
}

/** The text of an answer, as its author wrote it. */
export const textOf = (run) =>
  run.parts
    .filter(({ kind }) => kind === 'text')
    .map(({ text }) => text)
    .join('\n\n')

/** How many messages go, too, when an answer is given anew, or a message is edited: all after the message but its answer. */
export function following({ items }, item) {
  const at = items.indexOf(item)
  const from = item.kind === 'user' ? at : items.slice(0, at).findLastIndex(({ kind }) => kind === 'user')
  const after = items.slice(from + 1).filter((one) => one.kind === 'run' || one.id)
  return after.length - (after.some(({ kind }) => kind === 'run') ? 1 : 0)
}

export const waiting = (state) => state.queue.map((run) => ({ ...run, asked: asked(state, run) }))
/** The questions that are open. */
export const questions = (state) =>
  state.items
    .filter(({ kind, state }) => kind === 'run' && state === 'running')
    .flatMap(({ parts }) => parts.filter(({ kind, reply }) => kind === 'ask' && !reply))

export const isBusy = (state) => state.active.length > 0

const WIDE = /[\u2e80-\uffff]/g // of these a token has about one, of others about four
const weight = (text) => text.length / 4 + (text.match(WIDE)?.length ?? 0) * 0.5

const replace = (list, index, item) => list.with(index, item)
const asked = (state, { userMessageId }) => state.items[findLast(state.items, 'user', userMessageId)]
const findLast = (items, kind, id) => items.findLastIndex((item) => item.kind === kind && item.id === id)

const STEPS = {
  // --- what this page does itself ---
  opened: () => EMPTY,

  sending(state, { clientMsgId, content, agentId }) {
    const item = {
      kind: 'user',
      key: clientMsgId,
      id: undefined,
      clientMsgId,
      text: content,
      agentId,
      status: 'sending',
    }
    return append(state, item)
  },

  accepted: (state, { clientMsgId, messageId, runId }) =>
    user(state, clientMsgId, (item) => ({ ...item, id: messageId, runId, status: 'kept' })),

  refused: (state, { clientMsgId, message }) =>
    user(state, clientMsgId, (item) => ({ ...item, status: 'refused', error: message })),

  forgotten: (state, { clientMsgId }) => ({
    ...state,
    items: state.items.filter((item) => item.clientMsgId !== clientMsgId),
  }),

  quiet: (state) => ({ ...state, typing: undefined }),

  reading: (state, { reading }) => ({ ...state, reading }),

  /** Put a page of older messages, with the events of that part of the log, before the items. */
  earlier(state, { messages, events, taken, from, more }) {
    const kept = new Set(messages.map(({ messageId }) => messageId))
    const told = events.reduce(reduce, { ...EMPTY, room: Infinity, items: past(messages) })
    const gone = told.items.flatMap(idsOf).filter((id) => !kept.has(id) || taken.has(id))
    const pages = STEPS.message_removed(told, { messageIds: gone }).items
    const known = new Map(state.items.map((item) => [item.id, item]))
    const older = pages.map((item) => {
      const here = known.get(item.id)
      if (here && !(isPart(here) && item.state === 'done')) return here
      return item.state === 'running' ? { ...item, state: 'done' } : item // its end is after these events
    })
    const added = new Set(older.map(({ id }) => id))
    const items = [...older, ...state.items.filter(({ id }) => !id || !added.has(id))]
    return { ...state, items, room: Math.max(state.room, items.length), from, more }
  },

  // --- notices ---
  subscribed: (state, { head, active, members }) => ({
    ...state,
    seq: state.seq === 0 && !active.length ? head : state.seq, // otherwise events follow, up to the head
    head,
    from: head === 0 ? 0 : state.from,
    active,
    count: Math.max(1, members?.length ?? 1),
  }),

  reset(state, { messages }) {
    const unsent = state.items.filter(({ status }) => status === 'sending')
    return {
      ...EMPTY,
      seq: state.head,
      head: state.head,
      count: state.count,
      active: state.active,
      items: [...past(messages), ...unsent],
      from: state.head,
      more: messages.length > 0,
    }
  },

  state: (state, { active, queue }) => ({ ...state, active, queue }),

  presence: (state, { count }) => ({ ...state, count }),

  typing: (state, { author }) => ({ ...state, typing: author }),

  // --- events ---
  user_message(state, { messageId, clientMsgId, author, content, parts, ts, seq }) {
    const item = { kind: 'user', key: messageId, id: messageId, author, text: content, parts, ts, seq, status: 'kept' }
    const index = state.items.findLastIndex(
      (one) => one.id === messageId || (clientMsgId && one.clientMsgId === clientMsgId),
    )
    if (index < 0) return append({ ...state, typing: undefined }, item)
    // What this page sent takes its place in the log: behind all that came before.
    const own = { ...state.items[index], ...item, key: state.items[index].key }
    return { ...state, items: [...state.items.toSpliced(index, 1), own] }
  },

  run_started(state, event) {
    const index = findLast(state.items, 'run', event.runId)
    if (index >= 0 && !isPart(state.items[index]))
      return { ...state, items: replace(state.items, index, begun(event)) }
    const active = state.active.some(({ runId }) => runId === event.runId) ? state.active : [...state.active, event]
    const items = index < 0 ? state.items : state.items.toSpliced(index, 1)
    return append({ ...state, active, items }, begun(event))
  },

  stream(state, event) {
    const { messageId, content, offset } = event
    return run(state, event, (one) => {
      const index = findLast(one.parts, 'text', messageId)
      const before = index < 0 || offset === 0 ? '' : one.parts[index].text
      return measured(state, withPart(one, { kind: 'text', id: messageId, text: before + content }), event)
    })
  },

  message(state, event) {
    // A fork begins with answers of another session: each is whole, and its run stayed there.
    if (!event.runId) {
      const items = state.items.filter(({ id }) => id !== event.messageId)
      return append({ ...state, items }, past([{ ...event, role: 'assistant' }])[0])
    }
    const part = { kind: 'text', id: event.messageId, text: event.content, parts: event.parts }
    return run(state, event, (one) => measured(state, withPart(one, part), event))
  },

  reasoning(state, event) {
    return run(state, event, (one) => {
      const index = findLast(one.parts, 'reasoning', event.messageId)
      const part = index < 0 ? { startedAt: event.ts, text: '' } : one.parts[index]
      return withPart(one, {
        ...part,
        kind: 'reasoning',
        id: event.messageId,
        text: part.text + event.delta,
        endedAt: event.ts,
      })
    })
  },

  tool_call_start: (state, event) => tool(state, event, () => ({ name: event.toolCallName, args: '', state: 'args' })),
  tool_call_args: (state, event) => tool(state, event, (part) => ({ args: part.args + event.delta })),
  tool_call_end: (state, event) =>
    tool(state, event, (part) => ({ state: part.state === 'args' ? 'running' : part.state })),
  tool_call_result: (state, event) =>
    tool(state, event, () => ({
      state: event.isError ? 'failed' : 'done',
      result: event.content,
      fileId: event.fileId,
      size: event.size,
    })),

  progress: (state, event) =>
    run(state, event, (one) => ({ ...one, progress: { value: event.progress, message: event.message } })),

  step_started: (state, event) => step(state, event, false),
  step_finished: (state, event) => step(state, event, true),

  custom: (state, event) =>
    run(state, event, (one) =>
      withPart(one, { kind: 'custom', id: `c${event.seq}`, name: event.name, value: event.value }),
    ),

  interrupt: (state, event) => run(state, event, (one) => withPart(one, { kind: 'ask', id: event.id, ask: event })),

  interrupt_resolved(state, event) {
    const index = state.items.findLastIndex(
      (one) => one.kind === 'run' && findLast(one.parts, 'ask', event.interruptId) >= 0,
    )
    if (index < 0) return state
    const one = state.items[index]
    const part = one.parts[findLast(one.parts, 'ask', event.interruptId)]
    return { ...state, items: replace(state.items, index, withPart(one, { ...part, reply: event })) }
  },

  run_error: (state, event) => run(state, event, (one) => ({ ...one, error: event })),

  run_finished(state, event) {
    const active = state.active.filter(({ runId }) => runId !== event.runId)
    const queue = state.queue.filter(({ runId }) => runId !== event.runId)
    const after = { ...state, active, queue }
    const index = findLast(state.items, 'run', event.runId)
    if (index < 0) return withdrawn(after, event, state.queue)
    const end = {
      state: 'done',
      stopReason: event.stopReason,
      usage: event.usage,
      endedAt: event.ts,
      progress: undefined,
    }
    return { ...after, items: replace(state.items, index, { ...state.items[index], ...end }) }
  },

  message_removed(state, { messageIds }) {
    const gone = new Set(messageIds)
    const items = state.items.filter((item) =>
      item.kind === 'user'
        ? !gone.has(item.id)
        : !item.messageIds.length || !item.messageIds.every((id) => gone.has(id)),
    )
    return { ...state, items: items.map((item) => (item.kind === 'run' ? withoutTexts(item, gone) : item)) }
  },
}

function user(state, clientMsgId, change) {
  const index = state.items.findLastIndex((item) => item.clientMsgId === clientMsgId)
  return index < 0 ? state : { ...state, items: replace(state.items, index, change(state.items[index])) }
}

/** A run that never started has nothing to show; its message was taken back. */
function withdrawn(state, { runId, stopReason }, queue) {
  const waited = queue.find((run) => run.runId === runId)?.userMessageId
  const index = state.items.findLastIndex(
    (item) => item.kind === 'user' && (item.runId === runId || (waited && item.id === waited)),
  )
  if (index < 0 || stopReason !== 'cancelled') return state
  return { ...state, items: replace(state.items, index, { ...state.items[index], status: 'back' }) }
}

/** Add an item; if there are more than `room`, drop the oldest finished one. */
function append(state, item) {
  const items = [...state.items, item]
  const over = items.length > state.room && !state.reading ? items.findIndex(isOver) : -1
  if (over < 0) return { ...state, items }
  const next = items[over + 1]?.seq
  return { ...state, items: items.toSpliced(over, 1), from: next === undefined ? state.from : next - 1, more: true }
}

const isOver = ({ kind, id, state }) => (kind === 'run' ? state === 'done' : id !== undefined)

const begun = ({ runId, agentId, messageId, ts, seq }) => ({
  kind: 'run',
  key: runId,
  id: runId,
  seq,
  agentId,
  messageIds: messageId ? [messageId] : [],
  state: 'running',
  parts: [],
  startedAt: ts,
  chars: 0,
  weight: 0,
})

function run(state, event, change) {
  const index = findLast(state.items, 'run', event.runId)
  if (index < 0) return append(state, change({ ...begun(event), startedAt: undefined }))
  if (state.items[index].state === 'done') return state // the list of messages gave its whole text
  return { ...state, items: replace(state.items, index, change(state.items[index])) }
}

const idsOf = (item) =>
  item.kind === 'user' ? [item.id] : item.parts.filter(({ kind }) => kind === 'text').map(({ id }) => id)

/** Return whether the beginning of an answer is missing. */
const isPart = ({ kind, startedAt }) => kind === 'run' && startedAt === undefined

function withPart(one, part) {
  const index = findLast(one.parts, part.kind, part.id)
  const parts = index < 0 ? [...one.parts, part] : replace(one.parts, index, part)
  const messageIds =
    part.kind === 'text' && !one.messageIds.includes(part.id) ? [...one.messageIds, part.id] : one.messageIds
  return { ...one, parts, messageIds }
}

/** Note when text came, where it came just now: what is told again comes in larger pieces. */
function measured(state, one, { seq, ts, content }) {
  const live = state.head !== undefined && seq > state.head
  const firstAt = one.firstAt ?? (live && one.chars === 0 ? ts : undefined)
  return { ...one, firstAt, lastAt: ts, chars: one.chars + content.length, weight: one.weight + weight(content) }
}

function tool(state, event, change) {
  return run(state, event, (one) => {
    const index = findLast(one.parts, 'tool', event.toolCallId)
    const part =
      index < 0 ? { kind: 'tool', id: event.toolCallId, name: '', args: '', state: 'args' } : one.parts[index]
    return withPart(one, { ...part, ...change(part) })
  })
}

function step(state, event, done) {
  return run(state, event, (one) => withPart(one, { kind: 'step', id: event.stepName, done }))
}

const withoutTexts = (item, gone) =>
  item.parts.some(({ kind, id }) => kind === 'text' && gone.has(id))
    ? { ...item, parts: item.parts.filter(({ kind, id }) => kind !== 'text' || !gone.has(id)) }
    : item

/** Finished messages, as `history`, `reset` and HTTP have them, as items. */
function past(messages) {
  const items = []
  for (const { role, messageId, content, author, agentId, runId, parts, ts, seq, stopReason, error } of messages) {
    if (role === 'user') {
      items.push({ kind: 'user', key: messageId, id: messageId, author, text: content, parts, ts, seq, status: 'kept' })
      continue
    }
    const text = { kind: 'text', id: messageId, text: content, parts }
    const last = items.at(-1)
    const one = runId && last?.kind === 'run' && last.id === runId ? items.pop() : begun({ runId: runId ?? messageId, agentId, seq })
    items.push({ ...withPart(one, text), state: 'done', stopReason, error }) // the last message says how the answer ended
  }
  return items
}
