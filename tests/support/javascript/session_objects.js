// node session_objects.js URL GATE: several objects of one session, with a hub that has `gated`; print which checks hold.
// `gated` says "one ", waits for the file GATE, and says "two".
import { writeFileSync } from 'node:fs'
import WebSocket from 'ws'
import { connect } from './client.js'

const [url, gate] = process.argv.slice(2)
const checks = {}
const hub = connect(url, { WebSocket })
const once = (session, kind, test = () => true) =>
  new Promise((resolve) => session.on(kind, (value) => test(value) && resolve(value)))
const record = (session) => {
  const events = []
  session.on('event', (event) => event.seq !== undefined && events.push(event))
  return events
}
const isText = (event) => event.type === 'stream'
const isEnd = (event) => event.type === 'run_finished'

const first = hub.session('s1', { agent: 'gated' })
const firstEvents = record(first)
await once(first, 'subscribed')
const group = hub.subscribe({ agentId: 'gated' })
const groupEvents = []
const reading = (async () => {
  for await (const event of group) {
    groupEvents.push(event)
    if (groupEvents.filter(isEnd).length === 3) break
  }
})()
writeFileSync(gate, '')
await first.ask(gate)
const running = first.chat(gate + '-2')
await once(first, 'event', isText)

// An object that comes in the middle of an answer has the history, and the answer from its beginning.
let repeated = 0
first.on('subscribed', () => repeated++)
const late = hub.session('s1', { history: 1 })
const lateEvents = record(late)
const subscribed = await once(late, 'subscribed')
checks['a late object has its history'] = subscribed.history.length === 1 && subscribed.history[0].role === 'user'
checks['a late object knows the running answer'] = subscribed.active.length === 1
if (!lateEvents.some(isText)) await once(late, 'event', isText)
checks['a late object has a running answer from its beginning'] = lateEvents.some(({ type }) => type === 'run_started')

// An object with a cursor begins there, in the same stream.
const old = hub.session('s1', { afterSeq: 0 })
const oldEvents = record(old)
await once(old, 'subscribed')
const done = [first, late, old].map((session) => once(session, 'event', isEnd))
writeFileSync(gate + '-2', '')
checks['the chat has its complete answer'] = (await running.text()) === 'one two'
await Promise.all(done)
const seqs = (events) => events.map(({ seq }) => seq)
const text = (events) => events.filter(isText).map(({ content }) => content).join('')
const isDense = (events) => seqs(events).every((seq, index) => !index || seq > seqs(events)[index - 1])
checks['no object gets an event twice'] = [firstEvents, lateEvents, oldEvents].every(isDense)
checks['an object with a cursor gets all after it'] = text(oldEvents) === 'one twoone two' && oldEvents[0].seq === 1
checks['the first object gets all events once'] = text(firstEvents) === 'one twoone two'
checks['a late object gets the complete answer'] = text(lateEvents) === 'one two'
checks['the first object is not told of the others'] = repeated === 0

// A group gets each event once, however many objects read it, and from where.
await late.chat(gate, { agent: 'gated' }).text()
await reading
checks['a group gets the events once'] = text(groupEvents) === 'one twoone twoone two' && isDense(groupEvents)

// A listener may close its object, and others, while an event is passed on.
late.on('event', () => { late.close(); old.close() })
const before = oldEvents.length
await first.ask(gate)
checks['a closed object gets no event'] = oldEvents.length === before
checks['the last object goes on'] = text(firstEvents).endsWith('one two') && firstEvents.filter(isEnd).length === 4
first.close()
const again = hub.session('s1', { agent: 'gated' })
checks['a session can be opened again'] = (await again.ask(gate)) === 'one two'
hub.close()
console.log(JSON.stringify(checks))
