import { Cursor } from './cursor.js'
import { errorFromFrame } from './errors.js'

/** @import { HubError } from './errors.js' */
/** @import { Hub } from './hub.js' */
/** @import { Frame } from './pieces.js' */
/** @import { Session } from './session.js' */

const RETRY_MS = 1000
const MISSING = 'unknown_session'

/**
 * The stream of a session's events. Its readers are the session objects of the program, with their listeners and their
 * chats; each reader has a cursor of its own.
 *
 * A connection has at most one subscription to a session. It starts at the cursor that is furthest behind, and starts
 * again after each reconnect, if events are missing, and for a session object that is opened later.
 */
export class Subscription {
  isRefused = false // the last `subscribe` was refused
  /** @type {string | undefined} */
  epoch // of the stream: the readers may still be in the epoch before a reset
  #hub
  /** @type {Set<Session>} */
  #sessions = new Set()
  #published = new Cursor() // of the groups: they get each event once, whichever session object reads it first
  #isLive = false
  #isSent = false // a `subscribe` was sent over this connection
  #starts = 0 // frames that come before the answer to the last `subscribe` belong to an earlier one
  /** @type {{ seq?: number, epoch?: string }} */
  #requested = {} // the position in the last `subscribe`
  /** @type {Frame | undefined} */
  #answer // to the last `subscribe`, until the first event after it
  /** @type {number | undefined} */
  #lastSeq // of the last event in the stream; undefined if the hub chose the beginning, and none came yet
  /** @type {number | undefined} */
  #repairedAt // where events were missing last time
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #retryTimer

  /**
   * @param {Hub} hub
   * @param {string} sessionId
   */
  constructor(hub, sessionId) {
    this.#hub = hub
    this.sessionId = sessionId
  }

  /** @param {Session} session */
  add(session) {
    this.#sessions.add(session)
    if (this.#hub.state === 'live') this.start()
  }

  /** @param {Session} session */
  remove(session) {
    this.#sessions.delete(session)
    if (this.#sessions.size) return
    this.#ignore()
    this.#hub._removeSubscription(this)
    this.#hub._request({ type: 'unsubscribe', sessionId: this.sessionId }, () => {})
  }

  /**
   * Close all session objects.
   * @param {HubError} error
   */
  _close(error) {
    for (const session of [...this.#sessions]) session._close(error)
  }

  /** Subscribe over a new connection, and send the chats that are not accepted yet. */
  connect() {
    for (const session of this.#sessions) session._needsAnswer = true
    this.start()
    for (const session of [...this.#sessions]) session._sendChats()
  }

  disconnect() {
    this.#ignore()
    this.#isSent = false
    for (const session of this.#sessions) session._disconnect()
  }

  /** Subscribe, or subscribe again. */
  start() {
    this.#ignore()
    if (this.isRefused) for (const session of this.#sessions) session._needsAnswer = true
    this.isRefused = false
    const start = this.#starts
    const { seq, epoch } = (this.#requested = this.#chooseStart())
    this.#lastSeq = seq
    this.#answer = undefined
    const { sessionId } = this
    // A `subscribe` without a cursor does not move a subscription: the hub must forget it first.
    if (seq === undefined && this.#isSent) this.#hub._request({ type: 'unsubscribe', sessionId }, () => {})
    this.#isSent = true
    const history = this.#historyLength()
    this.#hub._request({ type: 'subscribe', sessionId, afterSeq: seq, epoch, history }, (answer, error) => {
      if (start !== this.#starts) return
      if (error) this.#refuse(error)
      else this.#accept(answer)
    })
  }

  /** Ignore events until the answer to the next start(). */
  #ignore() {
    this.#isLive = false
    this.#starts++
    clearTimeout(this.#retryTimer)
  }

  /**
   * Return the cursor that is furthest behind; none, so that the hub chooses, if a session object has no cursor yet.
   * @returns {{ seq?: number, epoch?: string }}
   */
  #chooseStart() {
    const sessions = [...this.#sessions]
    const reset = sessions.find(({ _cursor }) => _cursor.isFresh && _cursor.seq !== undefined)
    if (reset) return pick(reset._cursor) // no event came after a reset: have the reset again
    for (const session of sessions) session._beginAtChats()
    if (sessions.some(({ _cursor }) => _cursor.seq === undefined)) return {}
    const cursors = sessions.flatMap((session) => session._cursors())
    return pick(cursors.reduce((first, next) => (Number(next.seq) < Number(first.seq) ? next : first)))
  }

  /** Return the largest number of messages that a session object without a cursor wants. */
  #historyLength() {
    const lengths = [...this.#sessions].flatMap(({ _cursor, _history }) => (_cursor.seq === undefined ? [_history ?? -1] : []))
    const length = Math.max(-1, ...lengths)
    return length < 0 ? undefined : length
  }

  /**
   * Return true if events up to *seq* are missing for a reader.
   * @param {number} seq
   * @param {string} epoch
   */
  #isAnyBehind(seq, epoch) {
    const cursors = [...this.#sessions].flatMap((session) => session._cursors())
    return cursors.some((cursor) => Number(cursor.seq) < seq || (cursor.epoch ?? epoch) !== epoch)
  }

  /** @param {HubError} error */
  #refuse(error) {
    if (error.code === 'disconnected') return
    this.isRefused = true
    if (error.retryable) this.#retryTimer = setTimeout(() => this.start(), error.retryAfterMs ?? RETRY_MS)
    for (const session of [...this.#sessions]) {
      // With sign-in, a session that does not exist yet looks like one of others. The chats get an answer of their own.
      if (!error.retryable && error.code !== MISSING) session._close(error)
      session._emit('error', error)
    }
  }

  /** @param {Frame} answer */
  #accept(answer) {
    const { seq, epoch, active } = answer
    const { seq: requestedSeq, epoch: requestedEpoch } = this.#requested
    this.#isLive = true
    this.#answer = answer
    this.epoch = epoch
    if (requestedSeq === undefined && !active.length) this.#lastSeq = seq
    for (const session of this.#sessions) {
      if (session._cursor.seq !== undefined) session._cursor.epoch ??= epoch
      else if (requestedSeq === undefined) session._moveToBeginning(answer, epoch)
      else session._cursor = new Cursor(requestedSeq, requestedEpoch ?? epoch)
    }
    for (const session of [...this.#sessions]) session._subscribed(answer)
    // The hub chose the beginning for a new session object; another reader was behind it.
    if (requestedSeq === undefined && !active.length && this.#isAnyBehind(seq, epoch)) this.start()
  }

  /** @param {Frame} frame */
  receive(frame) {
    if (frame.type === 'reset') this.#receiveReset(frame)
    else if (frame.seq === undefined) this.#receiveNotice(frame)
    else this.#receiveEvent(frame)
  }

  /** @param {Frame} notice */
  #receiveNotice(notice) {
    const isLost = notice.type === 'error' && notice.code === MISSING // the principal may not read the session any more
    if (isLost) {
      this.#ignore()
      this.isRefused = true // start again only after a chat, or at the next connection
    }
    for (const session of [...this.#sessions]) {
      if (isLost) session._closeChats(errorFromFrame(notice))
      session._emit('event', notice)
    }
  }

  /** @param {Frame} event */
  #receiveEvent(event) {
    if (!this.#isLive || (this.#lastSeq !== undefined && event.seq <= this.#lastSeq)) return
    this.epoch ??= event.epoch // the first event creates the session
    if (event.epoch !== this.epoch) return this.start() // the session was deleted and created again: get its reset
    if (this.#lastSeq === undefined && this.#isAnyBehind(event.seq - 1, event.epoch)) return this.#startAt(event)
    const previousSeq = this.#lastSeq ?? event.seq - 1
    const acceptGap = this.#repairedAt === previousSeq // it was requested again already: the log does not have it
    const sessions = [...this.#sessions]
    const results = sessions.map((session) => session._take(event, previousSeq, acceptGap))
    this.#lastSeq = event.seq
    this.#answer = undefined
    if (results.some(({ isBehind }) => isBehind)) {
      this.#repairedAt = previousSeq
      this.start()
    }
    const newForGroups = this.#published.take(event, previousSeq, true)
    results.forEach(({ newEvent }, index) => newEvent && sessions[index]._deliver(newEvent, previousSeq))
    if (newForGroups) this.#hub._publish(newForGroups)
  }

  /**
   * The hub began with *event* for a new session object, and another reader is behind: begin where that one is.
   * @param {Frame} event
   */
  #startAt({ seq, epoch }) {
    for (const session of this.#sessions) session._cursor.seq ?? (session._cursor = new Cursor(seq - 1, epoch))
    this.start()
  }

  /** @param {Frame} reset */
  #receiveReset(reset) {
    if (!this.#isLive) return
    const answer = this.#answer
    if (!answer) return this.start() // a reset later in the stream does not say which runs are active: subscribe again
    const { seq, epoch } = this.#requested
    const sessions = [...this.#sessions]
    if (seq !== undefined && sessions.every(({ _cursor }) => seq < Number(_cursor.seq) && epoch === _cursor.epoch)) {
      // Only a chat was that far behind. The listeners have missed nothing.
      const first = Math.min(...sessions.map(({ _cursor }) => Number(_cursor.seq)))
      for (const session of sessions) session._resetChatsBefore(reset, first)
      return this.start()
    }
    this.epoch = reset.epoch
    this.#lastSeq = answer.active.length ? undefined : answer.seq
    this.#published = new Cursor()
    for (const session of sessions) session._reset(reset, answer)
  }

  /**
   * Start for a chat whose message is older than the stream: its answer has begun, or has ended.
   * @param {number} seq
   */
  startIfPast(seq) {
    const isPast = seq <= (this.#lastSeq ?? this.#answer?.seq ?? Infinity) // the event *seq* does not come any more
    if (this.isRefused || isPast) this.start()
  }
}

/** @param {Cursor} cursor */
const pick = ({ seq, epoch }) => ({ seq, epoch })
