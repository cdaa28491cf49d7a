// The state of a session on the page, as a pure function of the hub's events: reduce(state, event) -> state.
//
// `items` are the messages of people and the answers of agents, in the order of the log. A changed item is a new object,
// so that a view can compare items with `===`. As new items come, the oldest finished items are dropped, so that an event
// costs the same in a session of any length. The page can load them again, as earlier messages.

const MAX_ITEMS = 200 // without the earlier messages that were loaded

export const EMPTY = {
  items: [],
  maxItems: MAX_ITEMS,
  active: [],
  queue: [],
  count: 1,
  typing: undefined,
  seq: 0,
  head: undefined, // the seq of the log when this page subscribed
  from: undefined, // events up to this seq are not in the items; undefined until the newest page is loaded
  more: false, // the hub has earlier messages than these items
  reading: false, // earlier messages are being loaded: drop no item until they are here, or a gap remains
}

/** Return true if all events up to `head` are here, or can be loaded as earlier messages. */
export const isLoaded = ({ seq, head, from }) => seq >= head && from !== undefined

export function reduce(state, event) {
  const next = REDUCERS[event.type]?.(state, event) ?? state
  return event.seq === undefined ? next : { ...next, seq: event.seq }
}

/** Return the speed of an answer: exact if the model counted its tokens, else estimated. */
export function measurements(run) {
  if (run.startedAt === undefined || run.charCount === 0) return undefined
  const first = run.firstAt === undefined ? undefined : run.firstAt - run.startedAt
  const tokens = run.usage?.outputTokens ?? Math.max(1, Math.round(run.tokenEstimate))
  const ms = run.lastAt - (run.firstAt ?? run.startedAt)
  return {
    first,
    tokens,
    exact: run.usage?.outputTokens !== undefined,
    input: run.usage?.inputTokens,
    rate: ms > 0 ? (tokens * 1000) / ms : undefined,
  }
}

/** Return the text of an answer, as Markdown. */
export const textOf = (run) =>
  run.parts
    .filter(({ kind }) => kind === 'text')
    .map(({ text }) => text)
    .join('\n\n')

/** Count the messages that an edit, or a new answer, also removes: all after the message, except its own answer. */
export function countFollowing({ items }, item) {
  const index = items.indexOf(item)
  const from = item.kind === 'user' ? index : items.slice(0, index).findLastIndex(({ kind }) => kind === 'user')
  const after = items.slice(from + 1).filter(({ kind, id }) => kind === 'run' || id)
  return after.length - (after.some(({ kind }) => kind === 'run') ? 1 : 0)
}

/** Return the queued runs, each with the message that it answers. */
export const queuedRuns = (state) => state.queue.map((run) => ({ ...run, userMessage: userMessageOf(state, run) }))

/** Return the open questions. */
export const openQuestions = ({ items }) =>
  items
    .filter(({ kind, state }) => kind === 'run' && state === 'running')
    .flatMap(({ parts }) => parts.filter(({ kind, reply }) => kind === 'question' && !reply))

export const isBusy = (state) => state.active.length > 0

const WIDE = /[\u2e80-\uffff]/g // a Chinese character is nearly one token; of other characters, four are one token
const estimateTokens = (text) => text.length / 4 + (text.match(WIDE)?.length ?? 0) * 0.5

const replace = (list, index, item) => list.with(index, item)
const userMessageOf = (state, { userMessageId }) => state.items[findLast(state.items, 'user', userMessageId)]
const findLast = (items, kind, id) => items.findLastIndex((item) => item.kind === kind && item.id === id)

const REDUCERS = {
  // --- actions of this page ---
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
    updateUserMessage(state, clientMsgId, (item) => ({ ...item, id: messageId, runId, status: 'kept' })),

  refused: (state, { clientMsgId, message }) =>
    updateUserMessage(state, clientMsgId, (item) => ({ ...item, status: 'refused', error: message })),

  forgotten: (state, { clientMsgId }) => ({
    ...state,
    items: state.items.filter((item) => item.clientMsgId !== clientMsgId),
  }),

  quiet: (state) => ({ ...state, typing: undefined }),

  reading: (state, { reading }) => ({ ...state, reading }),

  /** Put a page of earlier messages, with the events of that part of the log, before the items. */
  earlier(state, { messages, events, removedIds, from, more }) {
    const messageIds = new Set(messages.map(({ messageId }) => messageId))
    const replay = events.reduce(reduce, { ...EMPTY, maxItems: Infinity, items: itemsFromMessages(messages) })
    const absentIds = replay.items.flatMap(idsOf).filter((id) => !messageIds.has(id) || removedIds.has(id))
    const page = REDUCERS.message_removed(replay, { messageIds: absentIds }).items
    const current = new Map(state.items.map((item) => [item.id, item]))
    const earlier = page.map((item) => {
      const shown = current.get(item.id)
      if (shown && !(isPartial(shown) && item.state === 'done')) return shown
      return item.state === 'running' ? { ...item, state: 'done' } : item // its end is after these events
    })
    const earlierIds = new Set(earlier.map(({ id }) => id))
    const items = [...earlier, ...state.items.filter(({ id }) => !id || !earlierIds.has(id))]
    return { ...state, items, maxItems: Math.max(state.maxItems, items.length), from, more }
  },

  // --- notices ---
  subscribed: (state, { head, active, members }) => ({
    ...state,
    seq: state.seq === 0 && !active.length ? head : state.seq, // else events up to the head follow
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
      items: [...itemsFromMessages(messages), ...unsent],
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
      (other) => other.id === messageId || (clientMsgId && other.clientMsgId === clientMsgId),
    )
    if (index < 0) return append({ ...state, typing: undefined }, item)
    // A message that this page sent moves to its position in the log.
    const own = { ...state.items[index], ...item, key: state.items[index].key }
    return { ...state, items: [...state.items.toSpliced(index, 1), own] }
  },

  run_started(state, event) {
    const index = findLast(state.items, 'run', event.runId)
    if (index >= 0 && !isPartial(state.items[index]))
      return { ...state, items: replace(state.items, index, newRun(event)) }
    const active = state.active.some(({ runId }) => runId === event.runId) ? state.active : [...state.active, event]
    const items = index < 0 ? state.items : state.items.toSpliced(index, 1)
    return append({ ...state, active, items }, newRun(event))
  },

  stream(state, event) {
    const { messageId, content, offset } = event
    return updateRun(state, event, (item) => {
      const index = findLast(item.parts, 'text', messageId)
      const before = index < 0 || offset === 0 ? '' : item.parts[index].text
      return addMeasurements(state, withPart(item, { kind: 'text', id: messageId, text: before + content }), event)
    })
  },

  message(state, event) {
    // A fork begins with answers of another session: they are complete, and have no run here.
    if (!event.runId) {
      const items = state.items.filter(({ id }) => id !== event.messageId)
      return append({ ...state, items }, itemsFromMessages([{ ...event, role: 'assistant' }])[0])
    }
    const part = { kind: 'text', id: event.messageId, text: event.content, parts: event.parts }
    return updateRun(state, event, (item) => addMeasurements(state, withPart(item, part), event))
  },

  reasoning(state, event) {
    return updateRun(state, event, (item) => {
      const index = findLast(item.parts, 'reasoning', event.messageId)
      const part = index < 0 ? { startedAt: event.ts, text: '' } : item.parts[index]
      return withPart(item, {
        ...part,
        kind: 'reasoning',
        id: event.messageId,
        text: part.text + event.delta,
        endedAt: event.ts,
      })
    })
  },

  tool_call_start: (state, event) => updateTool(state, event, () => ({ name: event.toolCallName, args: '', state: 'args' })),
  tool_call_args: (state, event) => updateTool(state, event, (part) => ({ args: part.args + event.delta })),
  tool_call_end: (state, event) =>
    updateTool(state, event, (part) => ({ state: part.state === 'args' ? 'running' : part.state })),
  tool_call_result: (state, event) =>
    updateTool(state, event, () => ({
      state: event.isError ? 'failed' : 'done',
      result: event.content,
      fileId: event.fileId,
      size: event.size,
    })),

  progress: (state, event) =>
    updateRun(state, event, (item) => ({ ...item, progress: { value: event.progress, message: event.message } })),

  step_started: (state, event) => updateStep(state, event, false),
  step_finished: (state, event) => updateStep(state, event, true),

  custom: (state, event) =>
    updateRun(state, event, (item) =>
      withPart(item, { kind: 'custom', id: `c${event.seq}`, name: event.name, value: event.value }),
    ),

  interrupt: (state, event) => updateRun(state, event, (item) => withPart(item, { kind: 'question', id: event.id, question: event })),

  interrupt_resolved(state, event) {
    const index = state.items.findLastIndex(
      ({ kind, parts }) => kind === 'run' && findLast(parts, 'question', event.interruptId) >= 0,
    )
    if (index < 0) return state
    const item = state.items[index]
    const part = item.parts[findLast(item.parts, 'question', event.interruptId)]
    return { ...state, items: replace(state.items, index, withPart(item, { ...part, reply: event })) }
  },

  run_error: (state, event) => updateRun(state, event, (item) => ({ ...item, error: event })),

  run_finished(state, event) {
    const active = state.active.filter(({ runId }) => runId !== event.runId)
    const queue = state.queue.filter(({ runId }) => runId !== event.runId)
    const after = { ...state, active, queue }
    const index = findLast(state.items, 'run', event.runId)
    if (index < 0) return withdrawMessage(after, event, state.queue)
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
    const removedIds = new Set(messageIds)
    const items = state.items.filter((item) =>
      item.kind === 'user'
        ? !removedIds.has(item.id)
        : !item.messageIds.length || !item.messageIds.every((id) => removedIds.has(id)),
    )
    return { ...state, items: items.map((item) => (item.kind === 'run' ? withoutTexts(item, removedIds) : item)) }
  },
}

function updateUserMessage(state, clientMsgId, change) {
  const index = state.items.findLastIndex((item) => item.clientMsgId === clientMsgId)
  return index < 0 ? state : { ...state, items: replace(state.items, index, change(state.items[index])) }
}

/** Mark the message of a run that was cancelled before it started: the run itself has nothing to show. */
function withdrawMessage(state, { runId, stopReason }, queue) {
  const messageId = queue.find((run) => run.runId === runId)?.userMessageId
  const index = state.items.findLastIndex(
    (item) => item.kind === 'user' && (item.runId === runId || (messageId && item.id === messageId)),
  )
  if (index < 0 || stopReason !== 'cancelled') return state
  return { ...state, items: replace(state.items, index, { ...state.items[index], status: 'back' }) }
}

/** Add an item; if there are more than `maxItems`, drop the oldest finished one. */
function append(state, item) {
  const items = [...state.items, item]
  const index = items.length > state.maxItems && !state.reading ? items.findIndex(isFinished) : -1
  if (index < 0) return { ...state, items }
  const nextSeq = items[index + 1]?.seq
  return { ...state, items: items.toSpliced(index, 1), from: nextSeq === undefined ? state.from : nextSeq - 1, more: true }
}

const isFinished = ({ kind, id, state }) => (kind === 'run' ? state === 'done' : id !== undefined)

const newRun = ({ runId, agentId, messageId, ts, seq }) => ({
  kind: 'run',
  key: runId,
  id: runId,
  seq,
  agentId,
  messageIds: messageId ? [messageId] : [],
  state: 'running',
  parts: [],
  startedAt: ts,
  charCount: 0,
  tokenEstimate: 0,
})

function updateRun(state, event, change) {
  const index = findLast(state.items, 'run', event.runId)
  if (index < 0) return append(state, change({ ...newRun(event), startedAt: undefined }))
  if (state.items[index].state === 'done') return state // its complete text came with the list of messages
  return { ...state, items: replace(state.items, index, change(state.items[index])) }
}

const idsOf = (item) =>
  item.kind === 'user' ? [item.id] : item.parts.filter(({ kind }) => kind === 'text').map(({ id }) => id)

/** Return true if the beginning of an answer is missing. */
const isPartial = ({ kind, startedAt }) => kind === 'run' && startedAt === undefined

function withPart(run, part) {
  const index = findLast(run.parts, part.kind, part.id)
  const parts = index < 0 ? [...run.parts, part] : replace(run.parts, index, part)
  const isNewText = part.kind === 'text' && !run.messageIds.includes(part.id)
  return { ...run, parts, messageIds: isNewText ? [...run.messageIds, part.id] : run.messageIds }
}

/** Measure the text of an event. Times count only for live events: a replay has larger pieces. */
function addMeasurements(state, run, { seq, ts, content }) {
  const isLive = state.head !== undefined && seq > state.head
  const firstAt = run.firstAt ?? (isLive && run.charCount === 0 ? ts : undefined)
  const charCount = run.charCount + content.length
  return { ...run, firstAt, lastAt: ts, charCount, tokenEstimate: run.tokenEstimate + estimateTokens(content) }
}

function updateTool(state, event, change) {
  return updateRun(state, event, (item) => {
    const index = findLast(item.parts, 'tool', event.toolCallId)
    const part =
      index < 0 ? { kind: 'tool', id: event.toolCallId, name: '', args: '', state: 'args' } : item.parts[index]
    return withPart(item, { ...part, ...change(part) })
  })
}

function updateStep(state, event, done) {
  return updateRun(state, event, (item) => withPart(item, { kind: 'step', id: event.stepName, done }))
}

const withoutTexts = (run, removedIds) =>
  run.parts.some(({ kind, id }) => kind === 'text' && removedIds.has(id))
    ? { ...run, parts: run.parts.filter(({ kind, id }) => kind !== 'text' || !removedIds.has(id)) }
    : run

/** Make items from finished messages, as `history`, `reset` and HTTP have them. */
function itemsFromMessages(messages) {
  const items = []
  for (const { role, messageId, content, author, agentId, runId, parts, ts, seq, stopReason, error } of messages) {
    if (role === 'user') {
      items.push({ kind: 'user', key: messageId, id: messageId, author, text: content, parts, ts, seq, status: 'kept' })
      continue
    }
    const text = { kind: 'text', id: messageId, text: content, parts }
    const last = items.at(-1)
    const isSameRun = runId && last?.kind === 'run' && last.id === runId
    const run = isSameRun ? items.pop() : newRun({ runId: runId ?? messageId, agentId, seq })
    items.push({ ...withPart(run, text), state: 'done', stopReason, error }) // the last message has the stop reason
  }
  return items
}
