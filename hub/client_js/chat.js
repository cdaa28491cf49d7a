import { COMPLETE_REASONS } from './codes.js'
import { Cursor } from './cursor.js'
import { Deferred } from './deferred.js'
import { HubError, errorFromFrame } from './errors.js'
import { EventQueue } from './event_queue.js'

/** @import * as client from './client.js' */
/** @import { Frame } from './pieces.js' */

/** @implements {client.Chat} */
export class Chat {
  /** @type {string | undefined} */
  runId
  isClosed = false
  /** @type {Cursor | undefined} */
  _cursor // in the session's events, once the message is accepted
  _isReady = true // false while files of the message are being uploaded
  _isSent = false // over the present connection
  _onAbandon = () => {} // aborts the uploads
  /** @type {(question: client.InterruptEvent) => void} */
  _onQuestion = () => {}
  #queue
  #onClose
  /** @type {Deferred<client.Accepted>} */
  #accepted = new Deferred()

  /**
   * @param {Frame} command
   * @param {() => void} onClose  Called when the chat is closed, and when its reader leaves the loop.
   */
  constructor(command, onClose) {
    this._command = command
    this.#onClose = onClose
    this.clientMsgId = command.clientMsgId
    this.accepted = this.#accepted.promise
    this.#queue = new EventQueue(onClose)
  }

  [Symbol.asyncIterator]() {
    return this.#queue
  }

  async text() {
    /** @type {Map<string, string>} */
    const texts = new Map() // by messageId
    let error
    for await (const event of this) {
      if (event.type === 'stream') texts.set(event.messageId, (texts.get(event.messageId) ?? '') + event.content)
      else if (event.type === 'message') {
        texts.set(event.messageId, event.content)
        if (event.error) error = errorFromFrame({ ...event, ...event.error })
        else error ??= findEarlyEnd(event) // after a reset, there is no run_finished: the last message says how it ended
      } else if (event.type === 'message_removed') for (const id of event.messageIds) texts.delete(id)
      else if (event.type === 'reset') texts.clear()
      else if (event.type === 'interrupt') this._onQuestion(event)
      else if (event.type === 'run_error') error = errorFromFrame(event)
      else if (event.type === 'run_finished') error ??= findEarlyEnd(event)
    }
    const text = [...texts.values()].join('')
    if (error) throw Object.assign(error, { text })
    return text
  }

  /**
   * @param {any} accepted
   * @param {Cursor} cursor
   */
  _begin(accepted, cursor) {
    this.runId = accepted.runId
    this._cursor = cursor
    this.#accepted.resolve(accepted)
    if (this.#queue.isClosed) this._close()
  }

  /**
   * Take the event if it belongs to this chat's run; return what Cursor.take() returns.
   * @param {Frame} event
   * @param {number} previousSeq
   * @param {boolean} [acceptGap]
   */
  _take(event, previousSeq, acceptGap) {
    const newEvent = this._cursor?.take(event, previousSeq, acceptGap)
    if (!newEvent || newEvent.runId !== this.runId) return newEvent
    this.#queue.push(newEvent)
    if (newEvent.type === 'run_finished') this._close()
    return newEvent
  }

  /**
   * Start anew after a reset: with the messages that the session has of the answer; without any, from the start of the
   * answer if it *isActive*.
   * @param {Frame} reset
   * @param {boolean} isActive
   */
  _reset(reset, isActive) {
    const { sessionId, epoch, reason } = reset
    const messages = reset.messages.filter((/** @type {client.Message} */ { runId }) => runId === this.runId)
    this.#queue.push(reset)
    for (const message of messages) this.#queue.push({ type: 'message', sessionId, epoch, ...message })
    if (messages.length) this._close()
    else if (isActive) this._cursor = new Cursor()
    else this._close(new HubError('reset', `the session was reset (${reason}), and has no message of this answer`, reset))
  }

  /** @param {Error} [error] */
  _close(error) {
    this.isClosed = true
    this._onAbandon()
    this.#accepted.reject(error)
    this.#queue.close(error)
    this.#onClose()
  }
}

/**
 * Make the error of an answer that was stopped before its end.
 * @param {{ stopReason?: client.StopReason, sessionId: string, runId?: string }} event
 */
const findEarlyEnd = ({ stopReason, ...event }) =>
  stopReason && !COMPLETE_REASONS.has(stopReason)
    ? new HubError(stopReason, `the answer ended early: ${stopReason}`, event)
    : undefined
