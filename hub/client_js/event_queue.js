import { HubError } from './errors.js'

/** @import { Frame } from './pieces.js' */
/** @typedef {{ resolve: (result: IteratorResult<any>) => void, reject: (error: Error) => void }} WaitingRead */

const MAX_UNREAD_EVENTS = 10_000
const MAX_UNREAD_CHARS = 16 * 1024 ** 2 // of the texts of these events

/** The queue behind an async iterator. If a reader lets it fill up, it is closed with the error `slow_reader`. */
export class EventQueue {
  isClosed = false
  #onClose
  /** @type {Frame[]} */
  #events = []
  #chars = 0 // of the texts of #events
  /** @type {Error | undefined} */
  #error
  /** @type {WaitingRead[]} */
  #waitingReads = []

  /** @param {() => void} onClose  Called once: when the reader leaves the loop, or at the end of the events. */
  constructor(onClose) {
    this.#onClose = onClose
  }

  /** @param {Frame} event */
  push(event) {
    if (this.isClosed) return
    const read = this.#waitingReads.shift()
    if (read) read.resolve({ value: event, done: false })
    else {
      this.#chars += textLength(event)
      if (this.#events.push(event) > MAX_UNREAD_EVENTS || this.#chars > MAX_UNREAD_CHARS) this.#overflow()
    }
  }

  #overflow() {
    const count = this.#events.length
    this.#events = []
    this.close(new HubError('slow_reader', `${count} events were not read: read them faster`))
  }

  /**
   * End the iterator. The events in the queue can still be read; after them the reader gets the error, once.
   * @param {Error} [error]
   */
  close(error) {
    if (this.isClosed) return
    this.isClosed = true
    const read = error && this.#waitingReads.shift()
    if (read) read.reject(error)
    else this.#error = error
    for (const { resolve } of this.#waitingReads.splice(0)) resolve({ value: undefined, done: true })
    this.#onClose()
  }

  /** @returns {Promise<IteratorResult<any>>} */
  async next() {
    const event = this.#events.shift()
    if (event) {
      this.#chars -= textLength(event)
      return { value: event, done: false }
    }
    if (this.#error) {
      const error = this.#error
      this.#error = undefined
      throw error
    }
    if (this.isClosed) return { value: undefined, done: true }
    return new Promise((resolve, reject) => this.#waitingReads.push({ resolve, reject }))
  }

  /**
   * Close the queue without an error, when the reader leaves the loop.
   * @param {any} [value]
   * @returns {Promise<IteratorResult<any>>}
   */
  async return(value) {
    this.#events = []
    this.close()
    this.#error = undefined
    return { value, done: true }
  }

  [Symbol.asyncIterator]() {
    return this
  }
}

/** @param {Frame} event */
const textLength = ({ content, delta }) => (typeof (content ?? delta) === 'string' ? (content ?? delta).length : 0)
