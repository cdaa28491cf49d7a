// The console loads earlier messages while new messages come.
import assert from 'node:assert/strict'
import { EMPTY } from './console/session.js'

globalThis.addEventListener = () => {}
globalThis.document = { getElementById: () => null, documentElement: {} }
const { makeConversation } = await import('./console/conversation.js')

const COUNT = 400 // messages, each of one event
const message = (seq) => ({ type: 'user_message', role: 'user', seq, messageId: `m${seq}`, author: { id: 'u' }, content: `${seq}`, ts: 1 })
const numbers = (from, to) => Array.from({ length: Math.max(0, to - from + 1) }, (_, index) => from + index)
let beforeAnswer = () => {}

/** The hub's HTTP routes: the messages, newest first, with a seq as their cursor; and the events after a seq. */
globalThis.fetch = async (address) => {
  const { pathname, searchParams } = new URL(address, 'http://hub')
  const number = (name, initial) => Number(searchParams.get(name) ?? initial)
  let body
  if (pathname.endsWith('/messages')) {
    const before = number('after', COUNT + 1)
    const from = Math.max(1, before - number('limit'))
    body = { data: numbers(from, before - 1).reverse().map(message), more: from > 1, next: from > 1 ? `${from}` : undefined }
  } else {
    body = { data: numbers(number('afterSeq') + 1, COUNT).map(message), more: false }
    beforeAnswer()
  }
  return { ok: true, status: 200, json: async () => body }
}

const listeners = {}
const session = { sessionId: 's1', on: (kind, listener) => ((listeners[kind] = listener), () => {}), close() {} }
const ui = { session: EMPTY }
const nothing = () => {}
const callbacks = { onChange: nothing, onRemoved: nothing, onLoaded: nothing, onDeleted: nothing }
const hub = { session: () => session, limits: { listSize: 60 } }
const page = makeConversation(hub, ui, (fields) => Object.assign(ui, fields), callbacks)
page.open('s1')
await listeners.subscribed({ seq: COUNT, epoch: 'e', active: [] })
while (ui.session.items.length < 240) await page.loadEarlier()

// The list is full: without a page being loaded, a new message would drop the oldest item, and leave a gap before it.
beforeAnswer = () => {
  beforeAnswer = nothing
  listeners.event(message(COUNT + 1))
}
await page.loadEarlier()
const seqs = ui.session.items.map(({ seq }) => seq)
assert.deepEqual(seqs, numbers(seqs[0], COUNT + 1))
