import { Chats } from './chats.js'
import { Cursor } from './cursor.js'
import { HubError, closedError } from './errors.js'
import { Listeners } from './listeners.js'

/** @import * as client from './client.js' */
/** @import { Chat } from './chat.js' */
/** @import { Hub, Callback } from './hub.js' */
/** @import { Frame } from './pieces.js' */
/** @import { Subscription } from './subscription.js' */

/**
 * A session, as a program uses it. Several objects of one session share a subscription.
 * @implements {client.Session}
 */
export class Session {
  _cursor // of the listeners
  _needsAnswer = true // the listeners have not got the answer to a `subscribe` of this connection
  #hub
  #agent
  #subscription
  #listeners = new Listeners()
  #chats
  #hasBeginning // the program chose where the listeners begin, or they have begun
  #isClosed = false

  /**
   * @param {Hub} hub
   * @param {Subscription} subscription
   * @param {client.SessionOptions} options
   */
  constructor(hub, subscription, { agent, afterSeq, epoch, history }) {
    this.sessionId = subscription.sessionId
    this._history = history
    this._cursor = new Cursor(afterSeq, epoch)
    this.#hasBeginning = afterSeq !== undefined || history !== undefined
    this.#hub = hub
    this.#agent = agent
    this.#subscription = subscription
    this.#chats = new Chats(hub, subscription, (seq) => this.#beginAt(seq))
  }

  get seq() {
    return this._cursor.seq
  }

  get epoch() {
    return this._cursor.epoch ?? this.#subscription.epoch
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
  chat(message, { agent, ...options } = {}) {
    // The results of tool calls go to the agent of the calls.
    if (!options.parts?.some(({ type }) => type === 'tool_result')) agent ??= this.#agent
    return this.#chats.add(message, { agent, ...options }, this.#isClosed ? closedError('session') : undefined)
  }

  /**
   * @param {string} message
   * @param {client.AskOptions} [options]
   */
  async ask(message, { onQuestion, ...options } = {}) {
    const chat = this.chat(message, options)
    const ids = new Set() // after a reset, the answer begins anew, and its questions come again
    chat._onQuestion = (question) => {
      if (!onQuestion || ids.has(question.id)) return
      ids.add(question.id)
      this.#reply(chat, question, onQuestion)
    }
    return chat.text()
  }

  /**
   * Answer a question of a chat, unless somebody else does first. The chat fails with an error of *onQuestion*.
   * @param {Chat} chat
   * @param {client.InterruptEvent} question
   * @param {(question: client.InterruptEvent) => unknown} onQuestion
   */
  async #reply(chat, question, onQuestion) {
    try {
      await this.#resumeWhenLive(question.id, await onQuestion(question))
    } catch (error) {
      if (!(error instanceof HubError && error.code === 'already_resolved')) chat._close(/** @type {Error} */ (error))
    }
  }

  /**
   * Answer a question: now, or at the next connection, and again if the connection is lost.
   * @param {string} id
   * @param {unknown} payload
   */
  async #resumeWhenLive(id, payload) {
    for (;;) {
      try {
        return await this.resume(id, payload)
      } catch (error) {
        if (/** @type {HubError} */ (error).code !== 'disconnected') throw error
      }
      await new Promise((resolve) => {
        const off = this.#hub.on('state', () => { off(); resolve(undefined) })
      })
    }
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

  /**
   * @param {string} interruptId
   * @param {unknown} [payload]
   * @param {client.ReplyStatus} [status]
   */
  async resume(interruptId, payload, status = 'resolved') {
    await this.send({ type: 'resume', interruptId, status, payload })
  }

  typing() {
    return this.send({ type: 'typing' })
  }

  /**
   * @param {client.FileContent} data
   * @param {client.UploadOptions} [options]
   */
  upload(data, options) {
    return this.#hub._files.upload(this.sessionId, data, options)
  }

  listFiles() {
    return this.#hub._files.list(this.sessionId)
  }

  /** @param {string} fileId */
  readFile(fileId) {
    return this.#hub._files.read(fileId)
  }

  /** @param {string} fileId */
  deleteFile(fileId) {
    return this.#hub._files.delete(fileId)
  }

  close() {
    this._close(closedError('session'))
  }

  /** @param {HubError} error */
  _close(error) {
    if (this.#isClosed) return
    this.#isClosed = true
    this._closeChats(error)
    this.#subscription.remove(this)
  }

  // --- called by the subscription ---

  /**
   * @param {string} kind
   * @param {unknown} value
   */
  _emit(kind, value) {
    this.#listeners.emit(kind, value)
  }

  _sendChats() {
    this.#chats.sendReady()
  }

  /** @param {HubError} error */
  _closeChats(error) {
    this.#chats.close(error)
  }

  _disconnect() {
    this.#chats.disconnect()
  }

  /** Return the cursors of the listeners and of the chats, without those that have no position. */
  _cursors() {
    return [this._cursor, ...this.#chats.cursors()].filter(({ seq, isFresh }) => seq !== undefined && !isFresh)
  }

  /** Let listeners without a position begin with the first chat: it was accepted before a `subscribe` was answered. */
  _beginAtChats() {
    const seqs = this.#chats.cursors().flatMap(({ seq }) => (seq === undefined ? [] : [seq]))
    if (this._cursor.seq === undefined && seqs.length) this._cursor = new Cursor(Math.min(...seqs), this.#subscription.epoch)
  }

  /**
   * Let the listeners begin with the message *seq*, if their beginning is not fixed yet.
   *
   * The connection may be lost before the first `subscribe` is answered, or the hub may refuse it because the session
   * does not exist yet. A chat that was sent then must be heard.
   * @param {number} seq
   */
  #beginAt(seq) {
    if (this.#hasBeginning || (this.seq === undefined ? !this.#subscription.isRefused : this.seq < seq)) return
    this._cursor = new Cursor(seq - 1, this.#subscription.epoch)
  }

  /**
   * Begin where the hub begins if no position was requested: at the head, or before the oldest answer that is active.
   * @param {Frame} answer
   * @param {string} epoch
   */
  _moveToBeginning({ seq, active }, epoch) {
    if (active.length) this._cursor.restart()
    else this._cursor = new Cursor(seq, epoch)
  }

  /** @param {Frame} answer */
  _subscribed({ history, ...answer }) {
    if (!this._needsAnswer) return
    this._needsAnswer = false
    const length = this._history
    this._history = undefined // only the first answer has it
    const messages = length === undefined ? {} : { history: history?.slice(Math.max(history.length - length, 0)) }
    this.#listeners.emit('subscribed', { ...answer, ...messages })
  }

  /**
   * Give an event to the listeners' cursor and to the chats.
   * @param {Frame} event
   * @param {number} previousSeq
   * @param {boolean} acceptGap
   */
  _take(event, previousSeq, acceptGap) {
    const newEvent = this._cursor.take(event, previousSeq, acceptGap)
    const isChatBehind = this.#chats.take(event, previousSeq, acceptGap)
    return { newEvent, isBehind: newEvent === null || isChatBehind }
  }

  /**
   * @param {Frame} event
   * @param {number} previousSeq
   */
  _deliver(event, previousSeq) {
    if (this.#isClosed) return // a listener of another object has closed this one
    this.#hasBeginning = true
    this.#chats.remember(event, previousSeq)
    this.#listeners.emit('event', event)
  }

  /**
   * Start anew after a reset of the session.
   * @param {Frame} reset
   * @param {Frame} answer  The answer to the `subscribe`, with the runs that are active.
   */
  _reset(reset, answer) {
    this.#hasBeginning = true
    this._moveToBeginning(answer, reset.epoch)
    this.#chats.reset(reset, answer.active)
    this.#listeners.emit('reset', reset)
  }

  /**
   * Close the chats whose cursors are before *seq*; the listeners have missed nothing.
   * @param {Frame} reset
   * @param {number} seq
   */
  _resetChatsBefore(reset, seq) {
    this.#chats.resetBefore(reset, seq)
  }
}
