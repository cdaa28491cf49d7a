// The state of a session on the page, as a pure function of the hub's events: reduce(state, event) -> state.
//
// `items` are the messages of people and the answers of agents, in the order of the log. A changed item is a new object,
// so that a view can compare items with `===`. As new items come, the oldest finished items are dropped, so that an event
// costs the same in a session of any length. The page can load them again, as earlier messages.

import { previewParts } from './files.js'
import {
  addMeasurements, findLast, idsOf, isFinished, isPartial, itemsFromMessages, newRun, replace, withPart, withResults, withoutTexts,
} from './items.js'

const MAX_ITEMS = 200 // without the earlier messages that were loaded

export const EMPTY = {
  items: [],
  maxItems: MAX_ITEMS,
  active: [],
  queue: [],
  count: 1,
  here: [], // who is here; empty if they are many
  role: undefined, // of this person, while sign-in is on
  isMissing: false, // with sign-in: the session does not exist, or this person may not see it
  isRemoved: false, // with sign-in: this person was a member, or the session was deleted
  typing: undefined,
  seq: 0,
  head: undefined, // the seq of the log when this page subscribed
  completeSeq: 0, // the last seq at which the page had all events up to the head
  from: undefined, // events up to this seq are not in the items; undefined until the newest page is loaded
  more: false, // the hub has earlier messages than these items
  reading: false, // earlier messages are being loaded: drop no item until they are here, or a gap remains
}

export function reduce(state, event) {
  const next = REDUCERS[event.type]?.(state, event) ?? state
  const { seq } = event
  return seq === undefined ? next : { ...next, seq, completeSeq: seq >= next.head ? seq : next.completeSeq }
}

const REDUCERS = {
  // --- actions of this page ---
  opened: () => EMPTY,

  sending(state, { clientMsgId, content, agentId, files = [] }) {
    const item = {
      kind: 'user',
      key: clientMsgId,
      id: undefined,
      clientMsgId,
      text: content,
      parts: previewParts(files),
      files,
      agentId,
      status: 'sending',
    }
    return append(state, item)
  },

  accepted: (state, { clientMsgId, messageId, runId }) =>
    updateUserMessage(state, clientMsgId, (item) => ({ ...item, id: messageId, runId, status: 'stored' })),

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
  subscribed: (state, { head, active, members, role }) => ({
    ...state,
    seq: state.seq === 0 && !active.length ? head : state.seq, // else events up to the head follow
    head,
    from: head === 0 ? 0 : state.isMissing ? undefined : state.from,
    active,
    count: Math.max(1, members?.length ?? 1),
    here: members ?? [],
    role,
    isMissing: false,
    isRemoved: false,
  }),

  /** The subscription is refused: show an empty session, or keep what is shown. */
  missing: (state) =>
    state.head === undefined || state.isMissing
      ? { ...state, head: 0, from: 0, isMissing: true }
      : REDUCERS.removed(state),

  removed: (state) => ({
    ...state,
    active: [],
    queue: [],
    here: [],
    count: 1,
    typing: undefined,
    isRemoved: true,
    items: state.items.map((item) =>
      item.state === 'running' ? { ...item, state: 'done', stopReason: 'noAccess', progress: undefined } : item,
    ),
  }),

  role: (state, { role }) => ({ ...state, role }),

  reset(state, { messages }) {
    const unsent = state.items.filter(({ status }) => status === 'sending')
    return {
      ...EMPTY,
      seq: state.head,
      head: state.head,
      count: state.count,
      here: state.here,
      role: state.role,
      active: state.active,
      items: [...itemsFromMessages(messages), ...unsent],
      from: state.head,
      more: messages.length > 0,
    }
  },

  state: (state, { active, queue }) => ({ ...state, active, queue }),

  presence: (state, { count, members }) => ({ ...state, count, here: members ?? [] }),

  typing: (state, { author }) => ({ ...state, typing: author }),

  // --- events ---
  user_message(state, { messageId, clientMsgId, author, content, parts, ts, seq }) {
    const item = { kind: 'user', key: messageId, id: messageId, author, text: content, parts, ts, seq, status: 'stored' }
    const index = state.items.findLastIndex(
      (other) => other.id === messageId || (clientMsgId && other.clientMsgId === clientMsgId),
    )
    const items = withResults(state.items, parts)
    if (index < 0) return append({ ...state, items, typing: undefined }, item)
    // A message that this page sent moves to its position in the log.
    const own = { ...items[index], ...item, files: undefined, key: items[index].key }
    return { ...state, items: [...items.toSpliced(index, 1), own] }
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
  return { ...state, items: replace(state.items, index, { ...state.items[index], status: 'withdrawn' }) }
}

/** Add an item; if there are more than `maxItems`, drop the oldest finished one. */
function append(state, item) {
  const items = [...state.items, item]
  const index = items.length > state.maxItems && !state.reading ? items.findIndex(isFinished) : -1
  if (index < 0) return { ...state, items }
  const nextSeq = items[index + 1]?.seq
  return { ...state, items: items.toSpliced(index, 1), from: nextSeq === undefined ? state.from : nextSeq - 1, more: true }
}

function updateRun(state, event, change) {
  const index = findLast(state.items, 'run', event.runId)
  if (index < 0) return append(state, change({ ...newRun(event), startedAt: undefined }))
  if (state.items[index].state === 'done') return state // its complete text came with the list of messages
  return { ...state, items: replace(state.items, index, change(state.items[index])) }
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
