import { EventQueue } from './event_queue.js'
import { Listeners } from './listeners.js'

/** @import * as client from './client.js' */
/** @import { HubError } from './errors.js' */
/** @import { Hub } from './hub.js' */
/** @import { Frame } from './pieces.js' */

/** @implements {client.Group} */
export class Group {
  #isClosed = false
  #hub
  #listeners = new Listeners()
  /** @type {Set<EventQueue>} */
  #queues = new Set()

  /**
   * @param {Hub} hub
   * @param {string} agentId
   */
  constructor(hub, agentId) {
    this.#hub = hub
    this.agentId = agentId
  }

  /**
   * @param {string} kind
   * @param {(value: any) => void} listener
   */
  on(kind, listener) {
    return this.#listeners.add(kind, listener)
  }

  [Symbol.asyncIterator]() {
    const queue = new EventQueue(() => {
      this.#queues.delete(queue)
      if (!this.#queues.size && !this.#listeners.size) this.close()
    })
    this.#queues.add(queue)
    return queue
  }

  close() {
    if (this.#isClosed) return
    this._close()
    if (!this.#hub._hasGroup(this.agentId)) this.#hub._request({ type: 'unsubscribe', agentId: this.agentId }, () => {})
  }

  connect() {
    this.#hub._request({ type: 'subscribe', agentId: this.agentId }, (_, error) => {
      if (!error || error.code === 'disconnected') return
      this._close(error)
      this.#listeners.emit('error', error)
    })
  }

  /** @param {Frame} event */
  _receive(event) {
    for (const queue of [...this.#queues]) queue.push(event)
    this.#listeners.emit('event', event)
  }

  /** @param {HubError} [error] */
  _close(error) {
    this.#isClosed = true
    this.#hub._removeGroup(this)
    for (const queue of [...this.#queues]) queue.close(error)
  }
}
