import { Cursor } from './cursor.js'

/** @import { SessionOptions } from './client.js' */
/** @import { HubError } from './errors.js' */
/** @import { Hub } from './hub.js' */
/** @import { Frame } from './pieces.js' */
/** @import { Session } from './session.js' */

const RETRY_MS = 1000

/**
 * The stream of a session's events, for its listeners and its chats; each of these readers has a cursor of its own.
 *
 * The subscription starts at the cursor that is furthest behind. It starts again after each reconnect, and if events
 * are missing.
 */
export class Subscription {
  #hub
  #session
  #history
  #cursor // of the listeners
  #hasBeginning // the program chose where the listeners begin, or they have begun
  /** @type {string | undefined} */
  #epoch
  #isLive = false
  isRefused = false // the last `subscribe` was refused
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
   * @param {Session} session
   * @param {SessionOptions} options
   */
  constructor(hub, session, { afterSeq, epoch, history }) {
    this.#hub = hub
    this.#session = session
    this.#history = history
    this.#cursor = new Cursor(afterSeq, epoch)
    this.#hasBeginning = afterSeq !== undefined || history !== undefined
  }

  /** Return the position of the listeners. */
  get seq() {
    return this.#cursor.seq
  }

  get epoch() {
    return this.#cursor.epoch ?? this.#epoch
  }

  /** Return the epoch of the stream: the listeners may still be in the epoch before a reset. */
  get streamEpoch() {
    return this.#epoch
  }

  /** Subscribe, or subscribe again. */
  start() {
    this.stop()
    this.isRefused = false
    const start = this.#starts
    const { seq, epoch } = this.#furthestBack()
    this.#requested = { seq, epoch }
    this.#lastSeq = seq
    this.#answer = undefined
    const history = seq === undefined ? this.#history : undefined
    const command = { type: 'subscribe', sessionId: this.#session.sessionId, afterSeq: seq, epoch, history }
    this.#hub._request(command, (answer, error) => {
      if (start !== this.#starts) return
      if (error) this.#refuse(error)
      else this.#accept(answer)
    })
  }

  /** Ignore events until the answer to the next start(). */
  stop() {
    this.#isLive = false
    this.#starts++
    clearTimeout(this.#retryTimer)
  }

  /** The hub has ended the subscription: start again only after a chat, or at the next connection. */
  end() {
    this.stop()
    this.isRefused = true
  }

  #furthestBack() {
    const cursor = this.#cursor
    if (cursor.isFresh && cursor.seq !== undefined) return cursor // no event came after a reset: have the reset again
    const cursors = this.#session._chatCursors()
    if (cursor.seq !== undefined) cursors.unshift(cursor)
    return cursors.reduce((first, next) => (Number(next.seq) < Number(first.seq) ? next : first), cursors[0] ?? cursor)
  }

  /** @param {HubError} error */
  #refuse(error) {
    if (error.code === 'disconnected') return
    this.isRefused = true
    if (error.retryable) this.#retryTimer = setTimeout(() => this.start(), error.retryAfterMs ?? RETRY_MS)
    this.#session._refused(error)
  }

  /** @param {Frame} answer */
  #accept(answer) {
    this.#isLive = true
    this.#answer = answer
    if (this.#requested.seq === undefined) this.#moveToBeginning(answer, answer.epoch)
    this.#epoch = answer.epoch
    this.#cursor.epoch ??= answer.epoch
    this.#session._subscribed(answer)
  }

  /**
   * Begin where the hub begins if no position was requested: at the head, or before the oldest answer that is active.
   * @param {Frame} answer
   * @param {string} epoch
   */
  #moveToBeginning({ seq, active }, epoch) {
    this.#lastSeq = active.length ? undefined : seq
    if (active.length) this.#cursor.restart()
    else this.#cursor = new Cursor(seq, epoch)
  }

  /**
   * Let the listeners begin with the message *seq*, if their beginning is not fixed yet.
   *
   * The connection may be lost before the first `subscribe` is answered, or the hub may refuse it because the session
   * does not exist yet. A chat that was sent then must be heard.
   * @param {number} seq
   */
  beginAt(seq) {
    if (this.#hasBeginning || (this.seq === undefined ? !this.isRefused : this.seq < seq)) return
    this.#cursor = new Cursor(seq - 1, this.#epoch)
  }

  /**
   * Return true if the stream is at or after *seq*, so that the event *seq* does not come any more.
   * @param {number} seq
   */
  hasPassed(seq) {
    return seq <= (this.#lastSeq ?? this.#answer?.seq ?? Infinity)
  }

  /** @param {Frame} event */
  receiveEvent(event) {
    if (!this.#isLive || (this.#lastSeq !== undefined && event.seq <= this.#lastSeq)) return
    this.#epoch ??= event.epoch // the first event creates the session
    if (event.epoch !== this.#epoch) return this.start() // the session was deleted and created again: get its reset
    const previousSeq = this.#lastSeq ?? event.seq - 1
    const acceptGap = this.#repairedAt === previousSeq // it was requested again already: the log does not have it
    const newEvent = this.#cursor.take(event, previousSeq, acceptGap)
    const isChatBehind = this.#session._takeForChats(event, previousSeq, acceptGap)
    this.#lastSeq = event.seq
    this.#answer = undefined
    if (newEvent === null || isChatBehind) {
      this.#repairedAt = previousSeq
      this.start()
    }
    if (!newEvent) return
    this.#hasBeginning = true
    this.#session._deliver(newEvent, previousSeq)
  }

  /** @param {Frame} reset */
  receiveReset(reset) {
    if (!this.#isLive) return
    const answer = this.#answer
    if (!answer) return this.start() // a reset later in the stream does not say which runs are active: subscribe again
    const { seq, epoch } = this.#requested
    if (seq !== undefined && this.seq !== undefined && seq < this.seq && epoch === this.epoch) {
      // Only a chat was that far behind. The listeners have missed nothing.
      this.#session._resetChatsBefore(reset, this.seq)
      return this.start()
    }
    this.#epoch = reset.epoch
    this.#hasBeginning = true
    this.#moveToBeginning(answer, reset.epoch)
    this.#session._reset(reset, answer.active)
  }
}
