// The items of a session: the messages of people (kind `user`) and the answers of agents (kind `run`).

const WIDE = /[\u2e80-\uffff]/g // a Chinese character is nearly one token; of other characters, four are one token
const estimateTokens = (text) => text.length / 4 + (text.match(WIDE)?.length ?? 0) * 0.5

/** Return a copy of a list with another item at *index*. */
export const replace = (list, index, item) => list.with(index, item)

/** Return the index of the last item of this kind with this id, -1 if there is none. */
export const findLast = (items, kind, id) => items.findLastIndex((item) => item.kind === kind && item.id === id)

/** Return true if an item does not change any more, and can be loaded again. */
export const isFinished = ({ kind, id, state }) => (kind === 'run' ? state === 'done' : id !== undefined)

/** Make the item of an answer without text. */
export const newRun = ({ runId, agentId, messageId, ts, seq }) => ({
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

/** Return the ids of the messages in an item. */
export const idsOf = (item) =>
  item.kind === 'user' ? [item.id] : item.parts.filter(({ kind }) => kind === 'text').map(({ id }) => id)

/** Return true if the beginning of an answer is missing. */
export const isPartial = ({ kind, startedAt }) => kind === 'run' && startedAt === undefined

/** Add a part to an answer, or replace the part of this kind with this id. */
export function withPart(run, part) {
  const index = findLast(run.parts, part.kind, part.id)
  const parts = index < 0 ? [...run.parts, part] : replace(run.parts, index, part)
  const isNewText = part.kind === 'text' && !run.messageIds.includes(part.id)
  return { ...run, parts, messageIds: isNewText ? [...run.messageIds, part.id] : run.messageIds }
}

/** Measure the text of an event. Times count only for live events: a replay has larger pieces. */
export function addMeasurements(state, run, { seq, ts, content }) {
  const isLive = state.head !== undefined && seq > state.head
  const firstAt = run.firstAt ?? (isLive && run.charCount === 0 ? ts : undefined)
  const charCount = run.charCount + content.length
  return { ...run, firstAt, lastAt: ts, charCount, tokenEstimate: run.tokenEstimate + estimateTokens(content) }
}

/** Remove the texts of removed messages from an answer. */
export const withoutTexts = (run, removedIds) =>
  run.parts.some(({ kind, id }) => kind === 'text' && removedIds.has(id))
    ? { ...run, parts: run.parts.filter(({ kind, id }) => kind !== 'text' || !removedIds.has(id)) }
    : run

/** Add the tool calls and results in the parts of an agent's message to the answer. */
function withToolCalls(run, parts) {
  return (parts ?? []).reduce((item, part) => {
    const { type, toolCallId: id, toolCallName: name, arguments: args } = part
    if (type === 'tool_call') return withPart(item, { kind: 'tool', id, name, args, state: 'running' })
    return type === 'tool_result' ? withResult(item, part) : item
  }, run)
}

function withResult(run, { toolCallId, content, isError, fileId, size }) {
  const part = run.parts[findLast(run.parts, 'tool', toolCallId)]
  return part ? withPart(run, { ...part, state: isError ? 'failed' : 'done', result: content, fileId, size }) : run
}

/** Add the results in a message of a person to the last answers that have their tool calls. */
export function withResults(items, parts) {
  return (parts ?? []).reduce((list, part) => {
    if (part.type !== 'tool_result') return list
    const hasCall = (item) => item.kind === 'run' && findLast(item.parts, 'tool', part.toolCallId) >= 0
    const index = list.findLastIndex(hasCall)
    return index < 0 ? list : replace(list, index, withResult(list[index], part))
  }, items)
}

/** Make items from finished messages, as `history`, `reset` and HTTP have them. */
export function itemsFromMessages(messages) {
  let items = []
  for (const { role, messageId, content, author, agentId, runId, parts, ts, seq, stopReason, error } of messages) {
    if (role === 'user') {
      items = withResults(items, parts)
      items.push({ kind: 'user', key: messageId, id: messageId, author, text: content, parts, ts, seq, status: 'stored' })
      continue
    }
    const text = { kind: 'text', id: messageId, text: content, parts }
    const last = items.at(-1)
    const isSameRun = runId && last?.kind === 'run' && last.id === runId
    const run = isSameRun ? items.pop() : newRun({ runId: runId ?? messageId, agentId, seq })
    const withCalls = withToolCalls(withPart(run, text), parts)
    items.push({ ...withCalls, state: 'done', stopReason, error }) // the last message has the stop reason
  }
  return items
}
