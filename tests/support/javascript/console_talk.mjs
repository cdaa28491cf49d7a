// How the console reads what was said before, while more is said.
import assert from 'node:assert/strict'
import { EMPTY } from './console/session.js'

globalThis.addEventListener = () => {}
globalThis.document = { getElementById: () => null, documentElement: {} }
const { talk } = await import('./console/talk.js')

const SAID = 400 // messages, each of one event
const said = (seq) => ({ type: 'user_message', role: 'user', seq, messageId: `m${seq}`, author: { id: 'u' }, content: `${seq}`, ts: 1 })
const numbers = (from, to) => Array.from({ length: Math.max(0, to - from + 1) }, (_, at) => from + at)
let meanwhile = () => {}

/** The hub's HTTP: a list of messages, the newest first, whose place is a seq, and the events after a seq. */
globalThis.fetch = async (address) => {
  const { pathname, searchParams } = new URL(address, 'http://hub')
  const number = (name, other) => Number(searchParams.get(name) ?? other)
  let body
  if (pathname.endsWith('/messages')) {
    const before = number('after', SAID + 1)
    const from = Math.max(1, before - number('limit'))
    body = { data: numbers(from, before - 1).reverse().map(said), more: from > 1, next: from > 1 ? `${from}` : undefined }
  } else {
    body = { data: numbers(number('afterSeq') + 1, SAID).map(said), more: false }
    meanwhile()
  }
  return { ok: true, status: 200, json: async () => body }
}

const listeners = {}
const session = { sessionId: 's1', on: (kind, listener) => ((listeners[kind] = listener), () => {}), close() {} }
const ui = { session: EMPTY }
const nothing = () => {}
const told = { changed: nothing, removed: nothing, loaded: nothing, deleted: nothing }
const page = talk({ session: () => session, limits: { listSize: 60 } }, ui, (what) => Object.assign(ui, what), told)
page.open('s1')
await listeners.subscribed({ seq: SAID, epoch: 'e', active: [] })
while (ui.session.items.length < 240) await page.earlier()

// There is no more room: what is said now would let the oldest item go, and the next page ends before that one.
meanwhile = () => {
  meanwhile = nothing
  listeners.event(said(SAID + 1))
}
await page.earlier()
const seqs = ui.session.items.map(({ seq }) => seq)
assert.deepEqual(seqs, numbers(seqs[0], SAID + 1))
