import { Chat } from './chat.js'
import { Cursor } from './cursor.js'
import { HubError, closedError, errorFromFrame } from './errors.js'
import { newId } from './ids.js'
import { Listeners } from './listeners.js'
import { Subscription } from './subscription.js'

/** @import * as client from './client.js' */
/** @import { Hub, Callback } from './hub.js' */
/** @import { Frame } from './pieces.js' */

const MAX_OPEN_CHATS = 100
const MAX_RECENT_EVENTS = 1000
const MISSING = 'unknown_session'
const SENT_AGAIN = new Set(['disconnected', 'draining']) // after these errors a chat waits for the next connection

/** @implements {client.Session} */
export class Session {
  #hub
  #agent
  #listeners = new Listeners()
  /** @type {Set<Chat>} */
  #chats = new Set() // open ones: not accepted yet, or still being answered and read
  #subscription
  // The events since the oldest chat that is not accepted: the hub may send an answer's first events before `accepted`.
  /** @type {{ event: Frame, previousSeq: number }[]} */
  #recent = []
  #isClosed = false

  /**
   * @param {Hub} hub
   * @param {string} sessionId
   * @param {client.SessionOptions} options
   */
  constructor(hub, sessionId, options) {
    this.#hub = hub
    this.sessionId = sessionId
    this.#agent = options.agent
    this.#subscription = new Subscription(hub, this, options)
  }

  get seq() {
    return this.#subscription.seq
  }

  get epoch() {
    return this.#subscription.epoch
  }

  /**
   * @param {string} kind
   * @param {(value: any) => void} listener
   */
  on(kind, listener) {
    return this.#listeners.add(kind, listener)
  }

  /**
   * @param {string} message
   * @param {client.ChatOptions} [options]
   */
  chat(message, { clientMsgId = newId(), agent = this.#agent, ifBusy } = {}) {
    const command = { type: 'chat', sessionId: this.sessionId, message, agentId: agent, clientMsgId, ifBusy }
    // A message that is not accepted yet is still sent, although its reader may have left.
    const chat = new Chat(command, () => (chat.isClosed || chat.runId) && this.#chats.delete(chat))
    if (this.#isClosed) chat._close(closedError('session'))
    else if (this.#chats.size >= MAX_OPEN_CHATS) {
      chat._close(new HubError('busy', `${MAX_OPEN_CHATS} chats of this session are not answered yet: wait for an answer`))
    } else {
      this.#chats.add(chat)
      if (this.#hub.state === 'live') this.#send(chat)
    }
    return chat
  }

  /**
   * @param {string} message
   * @param {client.ChatOptions} [options]
   */
  async ask(message, options) {
    return this.chat(message, options).text()
  }

  /**
   * @param {{ type: string, [field: string]: unknown }} command
   * @returns {Promise<any>}
   */
  send(command) {
    return new Promise((resolve, reject) => {
      /** @type {Callback} */
      const callback = (answer, error) => (error ? reject(error) : resolve(answer))
      if (this.#isClosed) callback(undefined, closedError('session'))
      else this.#hub._request({ sessionId: this.sessionId, ...command }, callback)
    })
  }

  /** @param {string} [runId] */
  cancel(runId) {
    return this.send({ type: 'cancel', runId })
  }

  typing() {
    return this.send({ type: 'typing' })
  }

  close() {
    if (this.#isClosed) return
    this.#hub._request({ type: 'unsubscribe', sessionId: this.sessionId }, () => {})
    this._close(closedError('session'))
  }

  /** @param {HubError} error */
  _close(error) {
    this.#isClosed = true
    this.#subscription.stop()
    this.#hub._remove(this)
    for (const chat of [...this.#chats]) chat._close(error)
  }

  _connect() {
    this.#subscription.start()
    for (const chat of this.#unaccepted()) this.#send(chat)
  }

  _disconnect() {
    this.#subscription.stop()
  }

  /** @param {Frame} frame */
  _receive(frame) {
    if (frame.type === 'reset') this.#subscription.receiveReset(frame)
    else if (frame.seq === undefined) this.#receiveNotice(frame)
    else this.#subscription.receiveEvent(frame)
  }

  /** @param {Frame} notice */
  #receiveNotice(notice) {
    if (notice.type === 'error' && notice.code === MISSING) {
      this.#subscription.end() // the principal may not read the session any more
      for (const chat of [...this.#chats]) chat._close(errorFromFrame(notice))
    }
    this.#listeners.emit('event', notice)
  }

  #unaccepted() {
    return [...this.#chats].filter((chat) => !chat.runId)
  }

  /** @param {Chat} chat */
  #send(chat) {
    this.#hub._request(chat._command, (accepted, error) => {
      if (error) return SENT_AGAIN.has(error.code) || chat._close(error)
      if (!chat.isClosed) this.#accept(chat, accepted)
      if (!this.#unaccepted().length) this.#recent = []
    })
  }

  /**
   * @param {Chat} chat
   * @param {Frame} accepted
   */
  #accept(chat, accepted) {
    const { seq } = accepted
    const index = this.#recent.findIndex(({ event }) => event.seq === seq)
    chat._begin(accepted, new Cursor(index < 0 ? seq - 1 : seq, this.#subscription.streamEpoch))
    this.#subscription.beginAt(seq)
    if (index >= 0) for (const { event, previousSeq } of this.#recent.slice(index + 1)) chat._take(event, previousSeq)
    // The message is older than this subscription: the answer has begun, or has ended. Read it from the log.
    else if (this.#subscription.isRefused || (this.#subscription.hasPassed(seq) && !chat.isClosed)) this.#subscription.start()
  }

  // --- called by the subscription ---

  /** Return the cursors of the chats that are accepted. */
  _chatCursors() {
    return [...this.#chats].flatMap(({ _cursor }) => (_cursor?.seq === undefined ? [] : [_cursor]))
  }

  /**
   * Give an event to the chats; return true if one of them lacks events before it.
   * @param {Frame} event
   * @param {number} previousSeq
   * @param {boolean} acceptGap
   */
  _takeForChats(event, previousSeq, acceptGap) {
    const results = [...this.#chats].map((chat) => chat._take(event, previousSeq, acceptGap))
    return results.includes(null)
  }

  /**
   * Give an event to the listeners, and to the groups of its agent.
   * @param {Frame} event
   * @param {number} previousSeq
   */
  _deliver(event, previousSeq) {
    if (this.#unaccepted().length) this.#recent = [...this.#recent.slice(-MAX_RECENT_EVENTS), { event, previousSeq }]
    this.#listeners.emit('event', event)
    this.#hub._publish(event)
  }

  /**
   * Start anew after a reset of the session.
   * @param {Frame} reset
   * @param {client.Run[]} active  The runs that are being answered now.
   */
  _reset(reset, active) {
    this.#recent = []
    for (const chat of [...this.#chats]) {
      if (chat.runId) chat._reset(reset, active.some(({ runId }) => runId === chat.runId))
    }
    this.#listeners.emit('reset', reset)
  }

  /**
   * Close the chats whose cursors are before *seq*; the listeners have missed nothing.
   * @param {Frame} reset
   * @param {number} seq
   */
  _resetChatsBefore(reset, seq) {
    for (const chat of [...this.#chats]) if (chat._cursor?.seq !== undefined && chat._cursor.seq < seq) chat._reset(reset, false)
  }

  /** @param {Frame} answer */
  _subscribed(answer) {
    this.#listeners.emit('subscribed', answer)
  }

  /** @param {HubError} error */
  _refused(error) {
    // With sign-in, a session that does not exist yet looks like one of others. The chats get an answer of their own.
    if (!error.retryable && error.code !== MISSING) this._close(error)
    this.#listeners.emit('error', error)
  }
}
