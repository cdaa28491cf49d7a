// node client_api.js URL: tries what the driver does not, with a hub that has `echo`; prints what held.
import WebSocket from 'ws'
import { connect, HubError } from './client.js'

const url = process.argv[2]
const held = {}
const code = (promise) => promise.then(() => undefined, (error) => error instanceof HubError && error.code)
const hub = connect(url, { WebSocket })
held['ready tells the hub'] = (await hub.ready) === hub && hub.principal.id === 'local'
held['agents'] = hub.agents.some(({ agentId }) => agentId === 'echo')

const session = hub.session('s1', { agent: 'echo' })
let subscribed = 0
session.on('subscribed', () => subscribed++)
held['one object for one session'] = hub.session('s1') === session

const group = hub.subscribe({ agentId: 'echo' })
const grouped = []
const reading = (async () => {
  for await (const event of group) {
    grouped.push(event)
    if (event.type === 'run_finished' && event.sessionId === 's1') break
  }
})()
const elsewhere = connect(url, { WebSocket })
await elsewhere.session('s2', { agent: 'echo' }).ask('other words')
let wrong
process.on('uncaughtException', (error) => (wrong = error.message))
const heard = []
session.on('event', () => { throw new Error('mine') })
const off = session.on('event', (event) => event.seq && heard.push(event))
held['ask'] = (await session.ask('hello there')) === 'hello there '
await reading
held['a group hears all sessions'] = new Set(grouped.map((event) => event.sessionId)).size === 2
const same = (one, other) => JSON.stringify(one) === JSON.stringify(other)
const ofSession = grouped.filter((event) => event.sessionId === 's1')
held['a group hears what a session hears, once'] = same(ofSession, heard.filter((event) => event.runId))
held['a listener that fails harms none'] = wrong === 'mine' && heard.length > 3

off()
const before = heard.length
const chat = session.chat('one two three')
for await (const event of chat) break
held['a loop that is left does not stop the answer'] = (await session.ask('again')) === 'again '
held['a listener that is taken away hears nothing'] = heard.length === before
held['a chat is accepted'] = (await session.chat('a').accepted).runId.startsWith('r_')

held['a chat does not subscribe anew'] = subscribed === 1
held['a busy answer is refused'] = (await code(session.send({ type: 'cancel', runId: 'r_none' }))) === 'not_running'
held['an id is checked'] = await code((async () => hub.session('no id'))()) === 'bad_id'
held['typing has no answer'] = (await session.typing()) === undefined

for (let number = 0; number < 99; number++) hub.on('welcome', () => {})
hub.on('welcome', () => {})
let most
try { hub.on('welcome', () => {}) } catch (error) { most = error }
held['listeners are bounded'] = most instanceof RangeError

const second = elsewhere.session('s3', { agent: 'echo' })
const pending = code(second.ask('never said'))
second.close()
held['a closed session refuses'] = (await pending) === 'closed' && (await code(second.ask('x'))) === 'closed'
held['and can be opened again'] = (await elsewhere.session('s3', { agent: 'echo' }).ask('hi')) === 'hi '

const late = session.chat('hello')
const cancel = code(session.cancel('r_any'))
hub.close()
held['close refuses what waits'] = (await code(late.text())) === 'closed' && (await cancel) === 'disconnected'
held['and what comes after'] = (await code(session.ask('x'))) === 'closed' && hub.state === 'closed'
const never = connect(url, { WebSocket })
never.close()
held['ready is refused'] = (await code(never.ready)) === 'closed'
elsewhere.close()
console.log(JSON.stringify(held)) // and nothing is left that would keep this process
