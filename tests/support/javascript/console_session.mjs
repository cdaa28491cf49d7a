// What a session looks like after what the hub said of it.
import assert from 'node:assert/strict'
import { EMPTY, figures, isBusy, isWhole, reduce, textOf, waiting } from './console/session.js'

const after = (...events) => events.reduce(reduce, EMPTY)
const asked = (seq, id, content, more) => ({
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

// An answer grows, and ends.
let state = after(
  asked(1, 'm1', 'hi'),
  started(2, 'r1', 'm2'),
  piece(3, 'r1', 'm2', 'a', 0),
  piece(4, 'r1', 'm2', 'b', 1),
)
assert.deepEqual(texts(state), ['hi', 'ab'])
assert.ok(isBusy(state) && state.seq === 4)
const before = state
state = reduce(state, ended(5, 'r1', 'm2'))
assert.ok(!isBusy(state) && state.items[1].state === 'done')
assert.equal(before.items[1].state, 'running') // nothing is altered
assert.equal(before.items[0], state.items[0])

// The same from the beginning again, as after a reload in mid-answer, is the same.
assert.deepEqual(
  texts([started(2, 'r1', 'm2'), piece(4, 'r1', 'm2', 'ab', 0), ended(5, 'r1', 'm2')].reduce(reduce, state)),
  ['hi', 'ab'],
)

// What this page sends is there at once, and takes its place in the log.
state = after({ type: 'sending', clientMsgId: 'c1', content: 'own', agentId: 'main' }, asked(1, 'm1', 'theirs'))
assert.deepEqual(
  state.items.map(({ text, status }) => [text, status]),
  [
    ['own', 'sending'],
    ['theirs', 'kept'],
  ],
)
state = [
  { type: 'accepted', clientMsgId: 'c1', messageId: 'm2', runId: 'r1' },
  asked(2, 'm2', 'own', { clientMsgId: 'c1' }),
].reduce(reduce, state)
assert.deepEqual(
  state.items.map(({ text, status, id }) => [text, status, id]),
  [
    ['theirs', 'kept', 'm1'],
    ['own', 'kept', 'm2'],
  ],
)

// It waits in the queue, and is taken back.
state = reduce(state, { type: 'state', active: [{ runId: 'r0' }], queue: [{ runId: 'r1', userMessageId: 'm2' }] })
assert.equal(waiting(state)[0].asked.text, 'own')
state = reduce(state, ended(3, 'r1', 'm9', 'cancelled'))
assert.deepEqual([waiting(state).length, state.items[1].status], [0, 'back'])

// Also one that another page sent, or this one before it was loaded.
state = after({ type: 'state', active: [], queue: [{ runId: 'r1', userMessageId: 'm1' }] }, asked(1, 'm1', 'theirs'))
assert.equal(waiting(state)[0].asked.text, 'theirs')
assert.equal(reduce(state, ended(2, 'r1', 'm9', 'cancelled')).items[0].status, 'back')

// A refusal stays with its message.
state = after(
  { type: 'sending', clientMsgId: 'c1', content: 'x' },
  { type: 'refused', clientMsgId: 'c1', message: 'busy' },
)
assert.deepEqual([state.items[0].status, state.items[0].error], ['refused', 'busy'])
assert.deepEqual(reduce(state, { type: 'forgotten', clientMsgId: 'c1' }).items, [])

// What is removed is gone: messages, answers, and an answer that has begun anew.
state = after(asked(1, 'm1', 'hi'), started(2, 'r1', 'm2'), piece(3, 'r1', 'm2', 'a', 0), ended(4, 'r1', 'm2'))
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

// After a reset there are the finished messages, what was not sent yet, and what follows.
const messages = [
  { messageId: 'm1', role: 'user', content: 'q' },
  { messageId: 'm2', role: 'assistant', content: 'x', runId: 'r1', agentId: 'main' },
  { messageId: 'm3', role: 'assistant', content: 'y', runId: 'r1', agentId: 'main' },
]
state = reduce(after(asked(1, 'm0', 'old'), { type: 'sending', clientMsgId: 'c1', content: 'mine' }), {
  type: 'reset',
  messages,
})
assert.deepEqual(texts(state), ['q', 'x\n\ny', 'mine'])
assert.ok(state.more)
state = reduce(state, {
  type: 'earlier',
  messages: [{ messageId: 'm0', role: 'user', content: 'p' }, messages[0]],
  events: [],
  taken: new Set(),
  more: false,
})
assert.deepEqual([texts(state), state.more], [['p', 'q', 'x\n\ny', 'mine'], false])

// A page of older messages has what its events tell; what was taken back, then or since, is not there.
const texted = (seq, id, role, content, runId) => ({ messageId: id, role, content, runId, seq })
const page = {
  type: 'earlier',
  from: 2,
  more: true,
  taken: new Set(['m7']),
  messages: [
    texted(3, 'm2', 'user', 'a'),
    texted(8, 'm3', 'assistant', 'b', 'r1'),
    texted(9, 'm6', 'assistant', 'said', 'r0'),
    texted(10, 'm7', 'user', 'taken back just now'),
  ],
  events: [
    asked(3, 'm2', 'a'),
    piece(4, 'r0', 'm6', 'id', 2), // of an answer that began before
    started(5, 'r1', 'm3'),
    { type: 'tool_call_start', seq: 6, runId: 'r1', toolCallId: 't1', toolCallName: 'f' },
    piece(7, 'r1', 'm3', 'b', 0),
    ended(8, 'r1', 'm3'),
    ended(9, 'r0', 'm6'),
    asked(10, 'm7', 'taken back just now'),
    asked(11, 'm8', 'taken back later'),
    started(12, 'r2', 'm9'), // still going on
    piece(13, 'r2', 'm9', 'half', 0),
  ],
}
const live = after(
  { type: 'subscribed', head: 13, active: [{ runId: 'r2' }] },
  started(12, 'r2', 'm9'),
  piece(14, 'r2', 'm9', 'half of it', 0),
)
assert.ok(!isWhole(live))
state = reduce(live, page)
assert.ok(isWhole(state) && state.more)
assert.deepEqual(texts(state), ['said', 'a', 'b', 'half of it'])
assert.equal(state.items[2].parts[0].kind, 'tool')
assert.equal(state.items[3], live.items[0])
assert.deepEqual(texts(reduce(state, piece(15, 'r2', 'm9', '!', 10))), ['said', 'a', 'b', 'half of it!'])

// An event costs the same in a long session: what is over is let go, what goes on is not, and is read again when asked for.
const NAMES = ['findLastIndex', 'findIndex', 'findLast', 'find', 'some', 'every', 'filter', 'map', 'flatMap', 'with', 'toSpliced']
let steps = 0
const counted = (method) =>
  function (...values) {
    steps += this.length
    return method.apply(this, values)
  }
const methods = [...NAMES, 'slice', 'includes', Symbol.iterator].map((name) => [name, Array.prototype[name]])
function cost(messages) {
  steps = 0
  let state = after({ type: 'subscribed', head: 0, active: [] }, started(1, 'slow', 's1'))
  for (const [name, method] of methods) Array.prototype[name] = counted(method)
  for (let at = 1; at <= messages; at++) {
    const [seq, run, id] = [at * 5, `r${at}`, `m${at}`]
    for (const event of [asked(seq, `q${at}`, 'q'), started(seq + 1, run, id), piece(seq + 2, run, id, 'x', 0), ended(seq + 3, run, id)])
      state = reduce(state, event)
  }
  for (const [name, method] of methods) Array.prototype[name] = method
  return [steps, state]
}
const [few, many] = [cost(1000), cost(10_000)] // 2,000 and 20,000 messages
assert.ok(few[0] > 1000 && many[0] < 11 * few[0], `${few[0]} steps, and ${many[0]}`)
state = many[1]
assert.deepEqual([state.items.length, state.items[0].id, state.items.at(-1).id], [200, 'slow', 'r10000'])
assert.ok(state.more && state.from === state.items[1].seq - 1)

// An answer of which only the messages are kept says how it ended: the last of them has it.
const failed = { stopReason: 'error', error: { code: 'agent_error', message: 'Out of ink.' } }
const cut = [
  texted(1, 'm1', 'user', 'q'),
  texted(2, 'm2', 'assistant', 'x', 'r1'),
  { ...texted(3, 'm3', 'assistant', '', 'r1'), ...failed },
  { ...texted(4, 'm4', 'assistant', 'y', 'r2'), stopReason: 'aborted' },
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

// A fork begins with messages that belong to no run: each answer is one of its own, whole, and nothing goes on.
const copy = (seq, id, content) => ({ type: 'message', seq, ts: 1000, agentId: 'main', messageId: id, content })
state = after(asked(1, 'm1', 'q'), copy(2, 'm2', 'x'), asked(3, 'm3', 'r'), copy(4, 'm4', 'y'))
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
assert.ok(!isBusy(state) && figures(state.items[1]) === undefined)

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

// Figures: from what came live; exact where the model counted.
state = after(
  { type: 'subscribed', head: 0, active: [] },
  asked(1, 'm1', 'hi'),
  started(2, 'r1', 'm2'),
  piece(3, 'r1', 'm2', 'a'.repeat(40), 0, 1500),
  piece(4, 'r1', 'm2', 'b'.repeat(40), 40, 2500),
)
assert.deepEqual(figures(state.items[1]), { first: 500, tokens: 20, exact: false, input: undefined, rate: 20 })
state = reduce(state, ended(5, 'r1', 'm2', 'end_turn', { inputTokens: 7, outputTokens: 30 }))
assert.deepEqual(figures(state.items[1]), { first: 500, tokens: 30, exact: true, input: 7, rate: 30 })
const told = [{ ...EMPTY, head: 9 }, started(2, 'r1', 'm2'), piece(4, 'r1', 'm2', 'ab', 0)].reduce((one, event) =>
  reduce(one, event),
)
assert.equal(figures(told.items[0]).first, undefined)

// What is not known changes nothing but the place.
assert.deepEqual(reduce(EMPTY, { type: 'of tomorrow', seq: 7 }), { ...EMPTY, seq: 7 })
