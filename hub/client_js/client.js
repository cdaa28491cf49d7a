// The client of a Hubbub hub, for browsers and for Node.js. docs/clients.md shows how to use it; its types are in
// client.d.ts. What begins with an underscore is for this file only.

const ANSWER_MS = 10_000 // for a welcome, and for any frame after a ping
const FIRST_WAIT_MS = 250
const LONGEST_WAIT_MS = 15_000
const UNREAD = 10_000 // events that wait for a reader; one who leaves more is taken away
const LISTENERS = 100
const CHATS = 100 // of one session that are not answered yet
const RECENT = 1000 // events, see Session
// From hub/messages/codes.py, which the Python client reads, too; a test compares.
const FINAL = new Set([1000, 1002, 1003, 1007, 1008, 1009, 1010])
const isFinal = (code) => FINAL.has(code) || (code >= 4500 && code <= 4999)
const RETRYABLE = new Set(['disconnected', 'busy', 'draining', 'internal', 'rate_limited', 'storage_unavailable', 'unavailable'])
const WHOLE = new Set(['end_turn', 'max_tokens', 'refused', 'tool_calls'])
// From hub/messages/pieces.py, as above.
const CUT = ['content', 'text', 'value', 'data', 'source', 'parts', 'history', 'messages', 'agents', 'delta', 'messageIds']
const isPiece = (frame) => frame.more || (frame.ts !== undefined && frame.seq === undefined)
const goesOn = (first, then) => first.type === then.type && first.messageId === then.messageId
const SENT_AGAIN = new Set(['disconnected', 'draining']) // a chat that met these waits for the next connection
const UNANSWERED = new Set(['typing', 'ping'])
const HALF = /\\(?:(ud[89a-f]..)|.)/g // in JSON: a lone surrogate, or another escape
const ID = /^[A-Za-z0-9._:@-]{1,128}$/

/** A size in bytes for people, exactly, as in hub/limits.py. */
function sizeText(size) {
  if (size % 1024 ** 2 === 0) return `${size / 1024 ** 2} MiB`
  return size % 1024 === 0 ? `${size / 1024} KiB` : `${size} bytes`
}

/** Join two pieces: append the fields that are cut; take the other fields from the second piece. */
function join(first, then) {
  const whole = { ...first, ...then }
  for (const name of CUT) if (first[name] !== undefined) whole[name] = joined(first[name], then[name])
  if (first.offset !== undefined) whole.offset = first.offset
  if (!then.more) delete whole.more
  return whole
}

function joined(first, then) {
  if (then === undefined) return first
  if (!Array.isArray(first)) return typeof first === 'object' ? join(first, then) : first + then
  const items = []
  for (const item of [...first, ...then]) {
    if (items.at(-1)?.more) items.push(join(items.pop(), item))
    else items.push(item)
  }
  return items
}

/** Connect to a hub, and stay connected until close() or a close code that forbids it. */
export function connect(url, { WebSocket = globalThis.WebSocket } = {}) {
  if (!WebSocket) throw new TypeError('no WebSocket here: pass that of the package ws, connect(url, { WebSocket })')
  return new Hub(String(url ?? location.origin.replace(/^http/, 'ws') + '/api/v1/ws'), WebSocket)
}

/** What the hub refused, or what the connection could not do; *code* stays the same, the message is for people. */
export class HubError extends Error {
  constructor(code, message, { retryable, retryAfterMs, sessionId, agentId, runId, clientMsgId } = {}) {
    super(message)
    retryable ??= RETRYABLE.has(code) || retryAfterMs !== undefined
    Object.assign(this, { name: 'HubError', code, retryable, retryAfterMs, sessionId, agentId, runId, clientMsgId })
  }
}

const refusal = (frame) => new HubError(frame.code, frame.message, frame)
const closed = (what) => new HubError('closed', `this ${what} is closed`)

class Listeners {
  #kinds = new Map()

  get size() {
    return [...this.#kinds.values()].reduce((sum, entries) => sum + entries.size, 0)
  }

  add(kind, listener) {
    const entries = this.#kinds.get(kind) ?? new Set()
    if (entries.size >= LISTENERS) throw new RangeError(`${LISTENERS} listeners for "${kind}": take some away first`)
    const entry = { listener } // the same function twice is two listeners
    this.#kinds.set(kind, entries.add(entry))
    return () => void entries.delete(entry)
  }

  tell(kind, value) {
    const entries = this.#kinds.get(kind) ?? new Set()
    for (const entry of [...entries]) {
      if (!entries.has(entry)) continue // another listener took it away
      try {
        entry.listener(value)
      } catch (error) {
        queueMicrotask(() => { throw error }) // theirs to see; the others hear on
      }
    }
  }
}

/** What an async iterator reads: *gone* is called once, when its reader has left or it has ended. */
class Feed {
  over = false
  #gone
  #events = []
  #error
  #waiting = []

  constructor(gone) {
    this.#gone = gone
  }

  push(event) {
    if (this.over) return
    if (this.#waiting.length) this.#waiting.shift().resolve({ value: event, done: false })
    else if (this.#events.push(event) > UNREAD) {
      this.#events = []
      this.end(new HubError('slow_reader', `${UNREAD} events were not read`))
    }
  }

  end(error) {
    if (this.over) return
    this.over = true
    this.#error = error
    if (error && this.#waiting.length) this.#waiting.shift().reject(this.#take())
    for (const { resolve } of this.#waiting.splice(0)) resolve({ value: undefined, done: true })
    this.#gone()
  }

  #take() {
    const error = this.#error
    this.#error = undefined
    return error
  }

  async next() {
    if (this.#events.length) return { value: this.#events.shift(), done: false }
    if (this.#error) throw this.#take()
    if (this.over) return { value: undefined, done: true }
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }))
  }

  async return(value) {
    this.#events = []
    this.end()
    this.#error = undefined
    return { value, done: true }
  }

  [Symbol.asyncIterator]() {
    return this
  }
}

/** One socket after another: opened, watched over and, where the close code allows it, replaced. */
class Link {
  state = 'connecting'
  #url
  #WebSocket
  #hub // { hear(frame), turn(now) }
  #socket
  #timer // of the state: the welcome's, the next ping's, the answer's, or the next try's
  #attempt = 0
  #retryAfterMs = 0
  #heard = false
  #piece // the frames joined so far, of an event or a notice in several frames
  #beatMs
  #wake = ({ type }) => (type === 'online' || document.visibilityState === 'visible') && this.#hurry()

  constructor(url, WebSocket, hub) {
    this.#url = url
    this.#WebSocket = WebSocket
    this.#hub = hub
    this.#open() // throws where the address is none
    globalThis.addEventListener?.('online', this.#wake)
    globalThis.document?.addEventListener('visibilitychange', this.#wake)
  }

  #open() {
    this.#piece = undefined
    const socket = (this.#socket = new this.#WebSocket(this.#url, 'hubbub.v1'))
    socket.onmessage = ({ data }) => socket === this.#socket && this.#put(JSON.parse(data))
    socket.onclose = ({ code, reason }) => socket === this.#socket && this.#lost(code, reason)
    socket.onerror = () => {} // its close follows; with nobody to hear it, it would end a Node.js process
    this.#after(ANSWER_MS, () => this.#lost(1006, 'no welcome came'))
    if (this.state !== 'connecting') this.#turn({ state: 'connecting' })
  }

  #turn(now) {
    this.state = now.state
    this.#hub.turn(now)
  }

  #after(ms, act) {
    clearTimeout(this.#timer)
    this.#timer = setTimeout(act, ms)
  }

  send(text) {
    this.#socket.send(text)
  }

  /** Join the frames of an event or a notice; no other frame comes between them. */
  #put(frame) {
    this.#heard = true
    const before = this.#piece
    this.#piece = undefined
    if (before && goesOn(before, frame)) frame = join(before, frame)
    else if (before) this.#hear(before) // a whole message has no seq; the event after it has
    if (isPiece(frame)) this.#piece = frame
    else this.#hear(frame)
  }

  #hear(frame) {
    if (frame.type === 'welcome') {
      this.state = 'live' // told by the hub, when it knows what the frame says
      this.#retryAfterMs = 0
      this.#beatMs = frame.heartbeatMs
      this.#after(this.#beatMs, () => this.#beat())
    } else if (frame.type !== 'error') {
      this.#attempt = 0 // not at the welcome: a hub that cuts each connection there is not to be stormed
    } else if (frame.ref === undefined || frame.code === 'draining') {
      this.#retryAfterMs = frame.retryAfterMs ?? 0
    }
    this.#hub.hear(frame)
  }

  #beat() {
    const wait = Math.min(ANSWER_MS, this.#beatMs)
    this.#heard = false
    this.send('{"type":"ping"}')
    this.#after(wait, () => {
      if (this.#heard) this.#after(this.#beatMs - wait, () => this.#beat())
      else this.#lost(1006, 'nothing came after a ping')
    })
  }

  /** Lose no time where the network, or whoever looks at the page, is back. */
  #hurry() {
    if (this.state === 'waiting') this.#open()
    else if (this.state === 'live') this.#beat()
  }

  #lost(code, reason) {
    const socket = this.#socket
    if (isFinal(code)) return this.end(code, reason)
    this.#socket = undefined
    // A half-open socket would wait long for its closing handshake: nobody listens to it any more.
    socket.terminate ? socket.terminate() : socket.close()
    const most = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** this.#attempt++)
    const retryInMs = Math.round(this.#retryAfterMs + Math.random() * most)
    this.#after(retryInMs, () => this.#open())
    this.#turn({ state: 'waiting', retryInMs, closeCode: code, closeReason: reason })
  }

  end(closeCode, closeReason) {
    if (this.state === 'closed') return
    const socket = this.#socket
    this.#socket = undefined
    clearTimeout(this.#timer)
    globalThis.removeEventListener?.('online', this.#wake)
    globalThis.document?.removeEventListener('visibilitychange', this.#wake)
    socket?.close(1000)
    this.#turn({ state: 'closed', closeCode, closeReason })
  }
}

class Hub {
  state = 'connecting'
  agents = []
  #link
  #listeners = new Listeners()
  #asked = new Map() // ref -> what is called with the answer, or with undefined and an error
  #refs = 0
  #sessions = new Map()
  #groups = new Set()
  #settle // of ready

  constructor(url, WebSocket) {
    this.ready = new Promise((resolve, reject) => (this.#settle = { resolve, reject }))
    this.ready.catch(() => {}) // whoever waits for it is told
    this.#link = new Link(url, WebSocket, { hear: (frame) => this.#hear(frame), turn: (now) => this.#turn(now) })
  }

  on(kind, listener) {
    return this.#listeners.add(kind, listener)
  }

  session(sessionId, options = {}) {
    if (this.state === 'closed') throw closed('hub')
    if (!ID.test(sessionId)) throw new HubError('bad_id', `${sessionId} is no id: 1 to 128 of A-Z a-z 0-9 . _ : @ -`)
    const there = this.#sessions.get(sessionId)
    if (there) return there
    const session = new Session(this, sessionId, options)
    this.#sessions.set(sessionId, session)
    if (this.state === 'live') session._online()
    return session
  }

  subscribe({ agentId }) {
    if (this.state === 'closed') throw closed('hub')
    const group = new Group(this, agentId)
    this.#groups.add(group)
    if (this.state === 'live') group._online()
    return group
  }

  close() {
    this.#link.end(1000, 'closed by this client')
  }

  #hear(frame) {
    const done = this.#asked.get(frame.ref)
    const session = this.#sessions.get(frame.sessionId)
    if (done) {
      this.#asked.delete(frame.ref)
      frame.type === 'error' ? done(undefined, refusal(frame)) : done(frame)
    } else if (frame.type === 'welcome') this.#welcome(frame)
    else if (session) session._hear(frame)
    else if (frame.seq !== undefined) this._news(frame)
    else if (frame.type !== 'pong') this.#listeners.tell('notice', frame)
  }

  #welcome(frame) {
    Object.assign(this, { state: 'live', agents: frame.agents, principal: frame.principal, limits: frame.limits })
    for (const one of [...this.#sessions.values(), ...this.#groups]) one._online()
    this.#listeners.tell('state', this.state)
    this.#listeners.tell('welcome', frame)
    this.#settle.resolve(this)
  }

  #turn(now) {
    Object.assign(this, { retryInMs: undefined }, now)
    if (now.state !== 'connecting') this.#cut()
    if (now.state === 'closed') {
      this.#settle.reject(closed('hub'))
      for (const one of [...this.#sessions.values(), ...this.#groups]) one._end(closed('hub'))
    }
    this.#listeners.tell('state', now.state)
  }

  #cut() {
    const lost = new HubError('disconnected', 'the connection was lost before the answer came')
    const asked = [...this.#asked.values()]
    this.#asked.clear()
    for (const session of this.#sessions.values()) session._offline()
    for (const done of asked) done(undefined, lost)
  }

  /** Send a command; *done* is called once, in the order of the frames: with its answer, or undefined and an error. */
  _ask(command, done) {
    if (this.state !== 'live') return done(undefined, new HubError('disconnected', 'there is no connection now'))
    const ref = ++this.#refs
    // The hub cannot read JSON with a lone surrogate, and so could not answer this command.
    const text = JSON.stringify({ ...command, ref }).replace(HALF, (escape, half) => (half ? '\ufffd' : escape))
    const most = this.limits.frameBytes
    if (text.length > most / 3 && new TextEncoder().encode(text).length > most) {
      return done(undefined, new HubError('too_large', `a ${command.type} may have at most ${sizeText(most)}`)) // else 1009
    }
    if (!UNANSWERED.has(command.type)) this.#asked.set(ref, done)
    this.#link.send(text)
    if (UNANSWERED.has(command.type)) done()
  }

  /** Give an event that nobody here has had to the groups of its agent. */
  _news(event) {
    for (const group of [...this.#groups]) if (group.agentId === event.agentId) group._hear(event)
  }

  _forget(one) {
    if (this.#sessions.get(one.id) === one) this.#sessions.delete(one.id)
    this.#groups.delete(one)
  }

  _grouped(agentId) {
    return [...this.#groups].some((group) => group.agentId === agentId)
  }
}

/** How far one reader has come in a session: it takes each event once, and of a joined piece only what is new. */
class Place {
  seq
  epoch
  fresh // the next event may have any number: the hub chooses where a reader without a place begins
  #ends = new Map() // runId -> its last message, and how many of its code points were had

  constructor(seq, epoch) {
    Object.assign(this, { seq, epoch, fresh: seq === undefined })
  }

  restart() {
    this.fresh = true
    this.#ends.clear()
  }

  /** Return what is new in an event that follows *before* in the stream, undefined for nothing; null: some is missing.
   *
   * Only pieces are joined, and only neighbours: any other event has the number after *before*.
   */
  take(event, before, anyway) {
    if (!this.fresh && event.seq <= this.seq) return undefined
    const end = this.#end(event)
    const skip = end === undefined ? 0 : end - event.offset
    const near = event.type === 'stream' ? end !== undefined || before === this.seq : event.seq === before + 1
    if (!(near && skip >= 0) && !this.fresh && !anyway) return null
    const mine = skip > 0 ? { ...event, content: [...event.content].slice(skip).join(''), offset: end } : event
    Object.assign(this, { seq: event.seq, epoch: event.epoch, fresh: false })
    if (event.type === 'stream') this.#ends.set(event.runId, [event.messageId, mine.offset + [...mine.content].length])
    if (event.type === 'run_finished') this.#ends.delete(event.runId)
    return mine
  }

  #end({ type, runId, messageId }) {
    const last = type === 'stream' ? this.#ends.get(runId) : undefined
    return last && (last[0] === messageId ? last[1] : 0)
  }
}

class Session {
  #hub
  #agent
  #history
  #listeners = new Listeners()
  #chats = new Set() // that are not answered to the end
  #place // of the listeners
  #begun // the listeners have a beginning that must not move back any more
  #epoch
  #before // the number of the last event of the present subscription; undefined where the hub chooses its beginning
  #live = false
  #turn = 0 // the last subscribe: what came before its answer belongs to another place
  #asked
  #joined // the answer, until the first event
  #mended // the number after which something was missing
  #recent = [] // [before, event] since the oldest chat that is not accepted: the answer may begin before `accepted`
  #timer
  #over = false

  constructor(hub, id, { agent, afterSeq, epoch, history }) {
    Object.assign(this, { id, sessionId: id })
    this.#hub = hub
    this.#agent = agent
    this.#history = history
    this.#place = new Place(afterSeq, epoch)
    this.#begun = afterSeq !== undefined || history !== undefined
  }

  get seq() {
    return this.#place.seq
  }

  get epoch() {
    return this.#place.epoch ?? this.#epoch
  }

  on(kind, listener) {
    return this.#listeners.add(kind, listener)
  }

  chat(message, { clientMsgId = newId(), agent = this.#agent, ifBusy } = {}) {
    const command = { type: 'chat', sessionId: this.id, message, agentId: agent, clientMsgId, ifBusy }
    // A message that is not accepted yet is still to be sent, though its reader may have left.
    const chat = new Chat(command, () => (chat.over || chat.runId) && this.#chats.delete(chat))
    if (this.#over) chat._end(closed('session'))
    else if (this.#chats.size >= CHATS) chat._end(new HubError('busy', `${CHATS} chats are not answered yet`))
    else {
      this.#chats.add(chat)
      if (this.#hub.state === 'live') this.#say(chat)
    }
    return chat
  }

  async ask(message, options) {
    return this.chat(message, options).text()
  }

  send(command) {
    return new Promise((resolve, reject) => {
      const done = (answer, error) => (error ? reject(error) : resolve(answer))
      this.#over ? done(undefined, closed('session')) : this.#hub._ask({ sessionId: this.id, ...command }, done)
    })
  }

  cancel(runId) {
    return this.send({ type: 'cancel', runId })
  }

  typing() {
    return this.send({ type: 'typing' })
  }

  close() {
    if (this.#over) return
    this.#hub._ask({ type: 'unsubscribe', sessionId: this.id }, () => {})
    this._end(closed('session'))
  }

  _end(error) {
    this.#over = true
    this._offline()
    this.#hub._forget(this)
    for (const chat of [...this.#chats]) chat._end(error)
  }

  _online() {
    this.#subscribe()
    for (const chat of this.#chats) if (!chat.runId) this.#say(chat)
  }

  _offline() {
    this.#live = false
    this.#turn++
    clearTimeout(this.#timer)
  }

  /** Hear the session from where the reader stands who has come the least far. */
  #subscribe() {
    this._offline()
    const turn = this.#turn
    const { seq, epoch } = this.#furthestBack()
    this.#asked = { seq, epoch }
    this.#before = seq
    this.#joined = undefined
    const history = seq === undefined ? this.#history : undefined
    const command = { type: 'subscribe', sessionId: this.id, afterSeq: seq, epoch, history }
    this.#hub._ask(command, (frame, error) => {
      if (turn !== this.#turn) return
      error ? this.#refused(error) : this.#subscribed(frame)
    })
  }

  #furthestBack() {
    const place = this.#place
    if (place.fresh && place.seq !== undefined) return place // a reset with nothing after it yet: have it again
    const places = [place, ...[...this.#chats].map((chat) => chat._place)].filter((one) => one?.seq !== undefined)
    return places.length ? places.reduce((one, other) => (other.seq < one.seq ? other : one)) : place
  }

  #subscribed(frame) {
    this.#live = true
    this.#joined = frame
    if (this.#asked.seq === undefined) this.#begin(frame.epoch)
    this.#epoch = frame.epoch
    this.#place.epoch ??= frame.epoch
    this.#listeners.tell('subscribed', frame)
  }

  /** Begin where the hub lets those begin who come without a place: at the end, or before the oldest answer. */
  #begin(epoch) {
    const { seq, active } = this.#joined
    this.#before = active.length ? undefined : seq
    if (active.length) this.#place.restart()
    else this.#place = new Place(seq, epoch)
  }

  #refused(error) {
    if (error.code === 'disconnected') return
    if (error.retryable) this.#timer = setTimeout(() => this.#subscribe(), error.retryAfterMs ?? FIRST_WAIT_MS * 4)
    else this._end(error)
    this.#listeners.tell('error', error)
  }

  #say(chat) {
    this.#hub._ask(chat._command, (frame, error) => {
      if (error) return SENT_AGAIN.has(error.code) || chat._end(error)
      if (!chat.over) this.#accepted(chat, frame)
      if (![...this.#chats].some((one) => !one.runId)) this.#recent = []
    })
  }

  #accepted(chat, frame) {
    const first = this.#recent.findIndex(([, event]) => event.seq === frame.seq)
    chat._begin(frame, new Place(first < 0 ? frame.seq - 1 : frame.seq, this.#epoch))
    // Who was cut off before the first subscribe was answered hears the own message, too.
    if (!this.#begun && this.seq >= frame.seq) this.#place = new Place(frame.seq - 1, this.#epoch)
    const heard = this.#before ?? this.#joined?.seq ?? Infinity
    if (first >= 0) for (const [before, event] of this.#recent.slice(first + 1)) chat._take(event, before)
    else if (frame.seq <= heard && !chat.over) this.#subscribe() // sent before: its answer has begun, or is over
  }

  _hear(frame) {
    if (frame.type === 'reset') this.#reset(frame)
    else if (frame.seq === undefined) this.#listeners.tell('event', frame)
    else if (this.#live && !(frame.seq <= this.#before)) this.#event(frame)
  }

  #event(frame) {
    this.#epoch ??= frame.epoch // the session exists from its first event on
    if (frame.epoch !== this.#epoch) return this.#subscribe() // another session under the old name: it will say so
    const before = this.#before ?? frame.seq - 1
    const anyway = this.#mended === before // asked for once already: what is missing is not to be had
    const mine = this.#place.take(frame, before, anyway)
    const taken = [mine, ...[...this.#chats].map((chat) => chat._take(frame, before, anyway))]
    this.#before = frame.seq
    this.#joined = undefined
    if (taken.includes(null)) {
      this.#mended = before
      this.#subscribe()
    }
    if (!mine) return
    this.#begun = true
    if ([...this.#chats].some((chat) => !chat.runId)) this.#recent = [...this.#recent.slice(-RECENT), [before, mine]]
    this.#listeners.tell('event', mine)
    this.#hub._news(mine)
  }

  #reset(frame) {
    if (!this.#live) return
    const joined = this.#joined
    if (!joined) return this.#subscribe() // amid the stream it does not say what is going on: ask again
    const chats = [...this.#chats].filter((chat) => chat.runId)
    if (this.#asked.seq < this.seq && this.#asked.epoch === this.epoch) {
      // Only an answer from long ago is gone. The listeners have missed nothing.
      for (const chat of chats) if (chat._place.seq < this.seq) chat._reset(frame, false)
      return this.#subscribe()
    }
    this.#epoch = frame.epoch
    this.#begun = true
    this.#recent = []
    this.#begin(frame.epoch)
    for (const chat of chats) chat._reset(frame, joined.active.some(({ runId }) => runId === chat.runId))
    this.#listeners.tell('reset', frame)
  }
}

/** One message and its answer: the events of the run, to its end, however often the connection is lost. */
class Chat {
  runId
  over = false
  #feed
  #left
  #settle

  constructor(command, left) {
    this._command = command
    this.#left = left
    this.clientMsgId = command.clientMsgId
    this.#feed = new Feed(left)
    this.accepted = new Promise((resolve, reject) => (this.#settle = { resolve, reject }))
    this.accepted.catch(() => {}) // whoever reads the events is told
  }

  [Symbol.asyncIterator]() {
    return this.#feed
  }

  async text() {
    const texts = new Map() // messageId -> its text
    let failure
    for await (const event of this) {
      if (event.type === 'stream') texts.set(event.messageId, (texts.get(event.messageId) ?? '') + event.content)
      else if (event.type === 'message') texts.set(event.messageId, event.content)
      else if (event.type === 'message_removed') for (const id of event.messageIds) texts.delete(id)
      else if (event.type === 'reset') texts.clear()
      else if (event.type === 'run_error') failure = refusal(event)
      else if (event.type === 'run_finished' && !WHOLE.has(event.stopReason)) {
        failure ??= new HubError(event.stopReason, `the answer ended early: ${event.stopReason}`, event)
      }
    }
    const text = [...texts.values()].join('')
    if (failure) throw Object.assign(failure, { text })
    return text
  }

  _begin(accepted, place) {
    this.runId = accepted.runId
    this._place = place
    this.#settle.resolve(accepted)
    if (this.#feed.over) this._end()
  }

  _take(event, before, anyway) {
    const mine = this._place?.take(event, before, anyway)
    if (!mine || mine.runId !== this.runId) return mine
    this.#feed.push(mine)
    if (mine.type === 'run_finished') this._end()
    return mine
  }

  /** Begin anew with the session: with what it kept of the answer, or where the answer *goesOn*, from its start. */
  _reset(frame, goesOn) {
    const { sessionId, epoch } = frame
    const kept = frame.messages.filter(({ runId }) => runId === this.runId)
    this.#feed.push(frame)
    for (const message of kept) this.#feed.push({ type: 'message', sessionId, epoch, ...message })
    if (kept.length) this._end()
    else if (goesOn) this._place = new Place()
    else this._end(new HubError('reset', `the session has begun anew (${frame.reason}), without this answer`, frame))
  }

  _end(error) {
    this.over = true
    this.#settle.reject(error)
    this.#feed.end(error)
    this.#left()
  }
}

/** The answers of one agent in all sessions, from those on that start while the connection is there. */
class Group {
  #over = false
  #hub
  #listeners = new Listeners()
  #feeds = new Set()

  constructor(hub, agentId) {
    this.#hub = hub
    this.agentId = agentId
  }

  on(kind, listener) {
    return this.#listeners.add(kind, listener)
  }

  [Symbol.asyncIterator]() {
    const feed = new Feed(() => {
      this.#feeds.delete(feed)
      if (!this.#feeds.size && !this.#listeners.size) this.close()
    })
    this.#feeds.add(feed)
    return feed
  }

  close() {
    if (this.#over) return
    this._end()
    if (!this.#hub._grouped(this.agentId)) this.#hub._ask({ type: 'unsubscribe', agentId: this.agentId }, () => {})
  }

  _online() {
    this.#hub._ask({ type: 'subscribe', agentId: this.agentId }, (_, error) => {
      if (!error || error.code === 'disconnected') return
      this._end(error)
      this.#listeners.tell('error', error)
    })
  }

  _hear(event) {
    for (const feed of [...this.#feeds]) feed.push(event)
    this.#listeners.tell('event', event)
  }

  _end(error) {
    this.#over = true
    this.#hub._forget(this)
    for (const feed of [...this.#feeds]) feed.end(error)
  }
}

function newId() {
  if (crypto.randomUUID) return crypto.randomUUID() // only where the page came safely
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, '0')).join('')
}
