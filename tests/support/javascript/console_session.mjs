// The state of a session after events of the hub.
import assert from 'node:assert/strict'
import { isBusy, isLoaded, measurements, openQuestions, queuedRuns, textOf } from './console/selectors.js'
import { EMPTY, reduce } from './console/session.js'

const after = (...events) => events.reduce(reduce, EMPTY)
const userMessage = (seq, id, content, more) => ({
  type: 'user_message',
  seq,
  messageId: id,
  author: { id: 'local', name: 'local' },
  content,
  ts: 1000,
  ...more,
})
const started = (seq, run, id) => ({
  type: 'run_started',
  seq,
  ts: 1000,
  runId: run,
  agentId: 'main',
  messageId: id,
  attempt: 1,
})
const piece = (seq, run, id, content, offset, ts = 2000) => ({
  type: 'stream',
  seq,
  ts,
  runId: run,
  agentId: 'main',
  messageId: id,
  content,
  offset,
})
const ended = (seq, run, id, stopReason = 'end_turn', usage) => ({
  type: 'run_finished',
  seq,
  ts: 3000,
  runId: run,
  agentId: 'main',
  messageId: id,
  stopReason,
  usage,
})
const texts = (state) => state.items.map((item) => (item.kind === 'user' ? item.text : textOf(item)))

// An answer grows and ends.
let state = after(
  userMessage(1, 'm1', 'hi'),
  started(2, 'r1', 'm2'),
  piece(3, 'r1', 'm2', 'a', 0),
  piece(4, 'r1', 'm2', 'b', 1),
)
assert.deepEqual(texts(state), ['hi', 'ab'])
assert.ok(isBusy(state) && state.seq === 4)
const before = state
state = reduce(state, ended(5, 'r1', 'm2'))
assert.ok(!isBusy(state) && state.items[1].state === 'done')
assert.equal(before.items[1].state, 'running') // reduce() changes no object
assert.equal(before.items[0], state.items[0])

// The same events again, as after a reload during an answer, change nothing.
assert.deepEqual(
  texts([started(2, 'r1', 'm2'), piece(4, 'r1', 'm2', 'ab', 0), ended(5, 'r1', 'm2')].reduce(reduce, state)),
  ['hi', 'ab'],
)

// A message that this page sends is shown at once, and then moves to its position in the log.
state = after({ type: 'sending', clientMsgId: 'c1', content: 'own', agentId: 'main' }, userMessage(1, 'm1', 'theirs'))
assert.deepEqual(
  state.items.map(({ text, status }) => [text, status]),
  [
    ['own', 'sending'],
    ['theirs', 'stored'],
  ],
)
state = [
  { type: 'accepted', clientMsgId: 'c1', messageId: 'm2', runId: 'r1' },
  userMessage(2, 'm2', 'own', { clientMsgId: 'c1' }),
].reduce(reduce, state)
assert.deepEqual(
  state.items.map(({ text, status, id }) => [text, status, id]),
  [
    ['theirs', 'stored', 'm1'],
    ['own', 'stored', 'm2'],
  ],
)

// A message waits in the queue, and is taken back.
state = reduce(state, { type: 'state', active: [{ runId: 'r0' }], queue: [{ runId: 'r1', userMessageId: 'm2' }] })
assert.equal(queuedRuns(state)[0].userMessage.text, 'own')
state = reduce(state, ended(3, 'r1', 'm9', 'cancelled'))
assert.deepEqual([queuedRuns(state).length, state.items[1].status], [0, 'withdrawn'])

// So does a message that another page sent, or this page before a reload.
state = after({ type: 'state', active: [], queue: [{ runId: 'r1', userMessageId: 'm1' }] }, userMessage(1, 'm1', 'theirs'))
assert.equal(queuedRuns(state)[0].userMessage.text, 'theirs')
assert.equal(reduce(state, ended(2, 'r1', 'm9', 'cancelled')).items[0].status, 'withdrawn')

// The reason of a refusal is kept with its message.
state = after(
  { type: 'sending', clientMsgId: 'c1', content: 'x' },
  { type: 'refused', clientMsgId: 'c1', message: 'busy' },
)
assert.deepEqual([state.items[0].status, state.items[0].error], ['refused', 'busy'])
assert.deepEqual(reduce(state, { type: 'forgotten', clientMsgId: 'c1' }).items, [])

// Removed messages disappear: messages of people, answers, and an answer that started again.
state = after(userMessage(1, 'm1', 'hi'), started(2, 'r1', 'm2'), piece(3, 'r1', 'm2', 'a', 0), ended(4, 'r1', 'm2'))
assert.deepEqual(texts(reduce(state, { type: 'message_removed', seq: 5, messageIds: ['m2'], reason: 'edited' })), [
  'hi',
])
assert.deepEqual(
  texts(reduce(state, { type: 'message_removed', seq: 5, messageIds: ['m1', 'm2'], reason: 'rollback' })),
  [],
)
state = [
  { type: 'message_removed', seq: 5, messageIds: ['m2'], reason: 'restarted' },
  { ...started(6, 'r1', 'm3'), attempt: 2 },
  piece(7, 'r1', 'm3', 'b', 0),
].reduce(reduce, state)
assert.deepEqual(texts(state), ['hi', 'b'])

// After a reset there are the finished messages, the unsent ones, and the events that follow.
const messages = [
  { messageId: 'm1', role: 'user', content: 'q' },
  { messageId: 'm2', role: 'assistant', content: 'x', runId: 'r1', agentId: 'main' },
  { messageId: 'm3', role: 'assistant', content: 'y', runId: 'r1', agentId: 'main' },
]
state = reduce(after(userMessage(1, 'm0', 'old'), { type: 'sending', clientMsgId: 'c1', content: 'mine' }), {
  type: 'reset',
  messages,
})
assert.deepEqual(texts(state), ['q', 'x\n\ny', 'mine'])
assert.ok(state.more)
state = reduce(state, {
  type: 'earlier',
  messages: [{ messageId: 'm0', role: 'user', content: 'p' }, messages[0]],
  events: [],
  removedIds: new Set(),
  more: false,
})
assert.deepEqual([texts(state), state.more], [['p', 'q', 'x\n\ny', 'mine'], false])

// A page of earlier messages has the details from its events, and no message that was taken back, then or since.
const finished = (seq, id, role, content, runId) => ({ messageId: id, role, content, runId, seq })
const page = {
  type: 'earlier',
  from: 2,
  more: true,
  removedIds: new Set(['m7']),
  messages: [
    finished(3, 'm2', 'user', 'a'),
    finished(8, 'm3', 'assistant', 'b', 'r1'),
    finished(9, 'm6', 'assistant', 'said', 'r0'),
    finished(10, 'm7', 'user', 'taken back just now'),
  ],
  events: [
    userMessage(3, 'm2', 'a'),
    piece(4, 'r0', 'm6', 'id', 2), // of an answer that started before
    started(5, 'r1', 'm3'),
    { type: 'tool_call_start', seq: 6, runId: 'r1', toolCallId: 't1', toolCallName: 'f' },
    piece(7, 'r1', 'm3', 'b', 0),
    ended(8, 'r1', 'm3'),
    ended(9, 'r0', 'm6'),
    userMessage(10, 'm7', 'taken back just now'),
    userMessage(11, 'm8', 'taken back later'),
    started(12, 'r2', 'm9'), // still active
    piece(13, 'r2', 'm9', 'half', 0),
  ],
}
const live = after(
  { type: 'subscribed', head: 13, active: [{ runId: 'r2' }] },
  started(12, 'r2', 'm9'),
  piece(14, 'r2', 'm9', 'half of it', 0),
)
assert.ok(!isLoaded(live))
state = reduce(live, page)
assert.ok(isLoaded(state) && state.more)
assert.deepEqual(texts(state), ['said', 'a', 'b', 'half of it'])
assert.equal(state.items[2].parts[0].kind, 'tool')
assert.equal(state.items[3], live.items[0])
assert.deepEqual(texts(reduce(state, piece(15, 'r2', 'm9', '!', 10))), ['said', 'a', 'b', 'half of it!'])

// An event costs the same in a long session: finished items are dropped, active ones are not.
const NAMES = ['findLastIndex', 'findIndex', 'findLast', 'find', 'some', 'every', 'filter', 'map', 'flatMap', 'with', 'toSpliced']
let steps = 0
const counting = (method) =>
  function (...values) {
    steps += this.length
    return method.apply(this, values)
  }
const methods = [...NAMES, 'slice', 'includes', Symbol.iterator].map((name) => [name, Array.prototype[name]])
function cost(count) {
  steps = 0
  let session = after({ type: 'subscribed', head: 0, active: [] }, started(1, 'slow', 's1'))
  for (const [name, method] of methods) Array.prototype[name] = counting(method)
  for (let number = 1; number <= count; number++) {
    const [seq, run, id] = [number * 5, `r${number}`, `m${number}`]
    for (const event of [userMessage(seq, `q${number}`, 'q'), started(seq + 1, run, id), piece(seq + 2, run, id, 'x', 0), ended(seq + 3, run, id)])
      session = reduce(session, event)
  }
  for (const [name, method] of methods) Array.prototype[name] = method
  return [steps, session]
}
const [few, many] = [cost(1000), cost(10_000)] // 2,000 and 20,000 messages
assert.ok(few[0] > 1000 && many[0] < 11 * few[0], `${few[0]} steps, and ${many[0]}`)
state = many[1]
assert.deepEqual([state.items.length, state.items[0].id, state.items.at(-1).id], [200, 'slow', 'r10000'])
assert.ok(state.more && state.from === state.items[1].seq - 1)

// If only the messages of an answer are stored, the last one says how the answer ended.
const failed = { stopReason: 'error', error: { code: 'agent_error', message: 'Out of ink.' } }
const cut = [
  finished(1, 'm1', 'user', 'q'),
  finished(2, 'm2', 'assistant', 'x', 'r1'),
  { ...finished(3, 'm3', 'assistant', '', 'r1'), ...failed },
  { ...finished(4, 'm4', 'assistant', 'y', 'r2'), stopReason: 'aborted' },
]
state = reduce(EMPTY, { type: 'reset', messages: cut })
assert.deepEqual(
  state.items.map((item) => [item.stopReason, item.error?.message]),
  [
    [undefined, undefined],
    ['error', 'Out of ink.'],
    ['aborted', undefined],
  ],
)
state = reduce(EMPTY, { type: 'message', seq: 1, agentId: 'main', messageId: 'm4', content: 'y', stopReason: 'aborted' })
assert.equal(state.items[0].stopReason, 'aborted')

// A fork begins with messages without a run: each answer is complete, and nothing is active.
const copy = (seq, id, content) => ({ type: 'message', seq, ts: 1000, agentId: 'main', messageId: id, content })
state = after(userMessage(1, 'm1', 'q'), copy(2, 'm2', 'x'), userMessage(3, 'm3', 'r'), copy(4, 'm4', 'y'))
assert.deepEqual(texts(state), ['q', 'x', 'r', 'y'])
assert.deepEqual(
  state.items.map((item) => [item.id, item.state]),
  [
    ['m1', undefined],
    ['m2', 'done'],
    ['m3', undefined],
    ['m4', 'done'],
  ],
)
assert.ok(!isBusy(state) && measurements(state.items[1]) === undefined)

// Tools, thoughts, steps, progress, questions.
const of = (type, seq, fields) => ({ type, seq, ts: 1000, runId: 'r1', agentId: 'main', ...fields })
state = after(
  started(1, 'r1', 'm1'),
  of('reasoning', 2, { messageId: 'm2', delta: 'hm' }),
  of('reasoning', 3, { messageId: 'm2', delta: 'm' }),
  of('tool_call_start', 4, { toolCallId: 't1', toolCallName: 'f' }),
  of('tool_call_args', 5, { toolCallId: 't1', delta: '{' }),
  of('tool_call_args', 6, { toolCallId: 't1', delta: '}' }),
)
assert.deepEqual(
  state.items[0].parts.map(({ kind, text, args }) => [kind, text ?? args]),
  [
    ['reasoning', 'hmm'],
    ['tool', '{}'],
  ],
)
state = reduce(state, of('tool_call_end', 7, { toolCallId: 't1' }))
assert.equal(state.items[0].parts[1].state, 'running')
state = reduce(state, of('tool_call_result', 8, { toolCallId: 't1', content: 'no', isError: true }))
assert.deepEqual([state.items[0].parts[1].state, state.items[0].parts[1].result], ['failed', 'no'])
state = reduce(state, of('progress', 9, { progress: 0.5, message: 'half' }))
assert.deepEqual(state.items[0].progress, { value: 0.5, message: 'half' })
state = [of('step_started', 10, { stepName: 's' }), of('step_finished', 11, { stepName: 's' })].reduce(reduce, state)
assert.ok(state.items[0].parts.at(-1).done)
state = reduce(state, of('interrupt', 12, { id: 'i1', reason: 'input_required', message: 'Sure?' }))
assert.equal(state.items[0].parts.at(-1).reply, undefined)
state = reduce(state, of('interrupt_resolved', 13, { interruptId: 'i1', status: 'resolved', payload: true }))
assert.equal(state.items[0].parts.at(-1).reply.payload, true)

// Measurements are made from live events; they are exact if the model counted the tokens.
state = after(
  { type: 'subscribed', head: 0, active: [] },
  userMessage(1, 'm1', 'hi'),
  started(2, 'r1', 'm2'),
  piece(3, 'r1', 'm2', 'a'.repeat(40), 0, 1500),
  piece(4, 'r1', 'm2', 'b'.repeat(40), 40, 2500),
)
assert.deepEqual(measurements(state.items[1]), { first: 500, tokens: 20, exact: false, input: undefined, rate: 20 })
state = reduce(state, ended(5, 'r1', 'm2', 'end_turn', { inputTokens: 7, outputTokens: 30 }))
assert.deepEqual(measurements(state.items[1]), { first: 500, tokens: 30, exact: true, input: 7, rate: 30 })
const replay = [{ ...EMPTY, head: 9 }, started(2, 'r1', 'm2'), piece(4, 'r1', 'm2', 'ab', 0)].reduce((session, event) =>
  reduce(session, event),
)
assert.equal(measurements(replay.items[0]).first, undefined)

// While the page catches up, a question is open only if it was open before: the reply to a newer one may follow.
const question = (seq, id) => ({ type: 'interrupt', seq, ts: 1000, runId: 'r1', agentId: 'main', id })
const resolved = (seq, id) => ({ type: 'interrupt_resolved', seq, ts: 1000, runId: 'r1', agentId: 'main', interruptId: id })
const openIds = (session) => openQuestions(session).map(({ id }) => id)
const subscribed = (head) => ({ type: 'subscribed', head, active: [{ runId: 'r1' }] })
state = after(subscribed(5), userMessage(1, 'm1', 'hi'), started(2, 'r1', 'm2'), question(3, 'q1'))
assert.deepEqual(openIds(state), [])
state = reduce(reduce(state, resolved(4, 'q1')), question(5, 'q2'))
assert.deepEqual(openIds(state), ['q2'])
state = reduce(reduce(state, subscribed(7)), question(6, 'q3'))
assert.deepEqual(openIds(state), ['q2'])
assert.deepEqual(openIds(reduce(state, resolved(7, 'q3'))), ['q2'])
assert.deepEqual(openIds(reduce(state, question(7, 'q4'))), ['q2', 'q3', 'q4'])

// An unknown event changes only the position.
assert.deepEqual(reduce(EMPTY, { type: 'of tomorrow', seq: 7 }), { ...EMPTY, seq: 7 })
