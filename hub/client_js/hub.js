import { Deferred } from './deferred.js'
import { HubError, closedError, errorFromFrame } from './errors.js'
import { Files } from './files.js'
import { Group } from './group.js'
import { isId } from './ids.js'
import { Link } from './link.js'
import { Listeners } from './listeners.js'
import { Session } from './session.js'
import { Subscription } from './subscription.js'
import { TokenSource } from './token.js'

/** @import * as client from './client.js' */
/** @import { StateChange } from './link.js' */
/** @import { Frame } from './pieces.js' */

/**
 * Called once, in the order of the frames, with the answer to a command or with an error.
 * @typedef {(answer?: any, error?: HubError) => void} Callback
 */

const BASE_PATH = '' // a hub that serves this file writes its setting base_path here
const UNANSWERED = new Set(['typing', 'ping'])
const ALWAYS_SENT = new Set(['subscribe', 'unsubscribe'])
const SURROGATE_ESCAPE = /\\(?:(ud[89a-f]..)|.)/g // in JSON.stringify's output only a lone surrogate is such an escape

/**
 * Connect to a hub: see client.d.ts.
 * @type {typeof client.connect}
 */
export function connect(url, { WebSocket = globalThis.WebSocket, token } = {}) {
  if (!WebSocket) {
    throw new TypeError('this JavaScript has no WebSocket: pass the one of the package ws, connect(url, { WebSocket })')
  }
  return new Hub(String(url ?? `${location.origin.replace(/^http/, 'ws')}${BASE_PATH}/api/v1/ws`), WebSocket, token)
}

/** @implements {client.Hub} */
export class Hub {
  /** @type {client.State} */
  state = 'connecting'
  /** @type {number | undefined} */
  retryInMs
  /** @type {number | undefined} */
  closeCode
  /** @type {string | undefined} */
  closeReason
  /** @type {client.Agent[]} */
  agents = []
  /** @type {client.Author | undefined} */
  principal
  /** @type {client.Limits | undefined} */
  limits
  #link
  #url
  #tokens
  #listeners = new Listeners()
  /** @type {Map<number, Callback>} */
  #callbacks = new Map() // by the `ref` of the command
  #lastRef = 0
  /** @type {Map<string, Subscription>} */
  #subscriptions = new Map() // by session id
  /** @type {Set<Group>} */
  #groups = new Set()
  /** @type {Deferred<client.Hub>} */
  #ready = new Deferred()

  /**
   * @param {string} url
   * @param {NonNullable<client.ConnectOptions['WebSocket']>} WebSocket
   * @param {client.Token} [token]
   */
  constructor(url, WebSocket, token) {
    this._files = new Files(this)
    this.ready = this.#ready.promise
    this.#url = url
    this.#tokens = new TokenSource(token)
    this.#link = new Link(url, WebSocket, this.#tokens, {
      receive: (frame) => this.#receive(frame),
      changeState: (change) => this.#changeState(change),
    })
  }

  /**
   * @param {string} kind
   * @param {(value: any) => void} listener
   */
  on(kind, listener) {
    return this.#listeners.add(kind, listener)
  }

  /**
   * @param {string} sessionId
   * @param {client.SessionOptions} [options]
   */
  session(sessionId, options = {}) {
    if (this.state === 'closed') throw closedError('hub', this.closeCode)
    if (!isId(sessionId)) {
      throw new HubError('bad_id', `"${sessionId}" is not a session id: use 1 to 128 of A-Z a-z 0-9 . _ : @ -`)
    }
    const subscription = this.#subscriptions.get(sessionId) ?? new Subscription(this, sessionId)
    this.#subscriptions.set(sessionId, subscription)
    const session = new Session(this, subscription, options)
    subscription.add(session)
    return session
  }

  /** @param {{ agentId: string }} options */
  subscribe({ agentId }) {
    if (this.state === 'closed') throw closedError('hub', this.closeCode)
    const group = new Group(this, agentId)
    this.#groups.add(group)
    if (this.state === 'live') group.connect()
    return group
  }

  /**
   * @param {string} path
   * @param {client.FetchOptions} [options]
   */
  async fetch(path, options = {}) {
    if (!path.startsWith('/')) throw new TypeError(`"${path}" is not a path of the hub: write one such as /sessions`)
    const { url, headers } = await this._prepare(path, options.headers)
    return globalThis.fetch(url, { ...options, headers })
  }

  /**
   * Return the address of a route, and the headers of a request with this client's token.
   * @param {string} path
   * @param {HeadersInit} [fields]
   */
  async _prepare(path, fields) {
    const headers = new Headers(fields)
    const token = await this.#tokens.last()
    if (token !== undefined) headers.set('Authorization', `Bearer ${token}`)
    const base = this.#url.replace(/^ws/, 'http').replace(/[?#].*/, '').replace(/\/ws$/, '')
    return { url: base + path, headers }
  }

  close() {
    this.#link.close(1000, 'closed by this client')
  }

  /** @param {Frame} frame */
  #receive(frame) {
    const callback = this.#callbacks.get(frame.ref)
    const subscription = this.#subscriptions.get(frame.sessionId)
    if (callback) {
      this.#callbacks.delete(frame.ref)
      if (frame.type === 'error') callback(undefined, errorFromFrame(frame))
      else callback(frame)
    } else if (frame.type === 'welcome') this.#welcome(frame)
    else if (subscription) subscription.receive(frame)
    else if (frame.seq !== undefined) this._publish(frame)
    else if (frame.type !== 'pong') this.#listeners.emit('notice', frame)
  }

  /** @param {Frame} frame */
  #welcome(frame) {
    this.state = 'live'
    this.agents = frame.agents
    this.principal = frame.principal
    this.limits = frame.limits
    for (const member of this.#members()) member.connect()
    this.#listeners.emit('state', this.state)
    this.#listeners.emit('welcome', frame)
    this.#ready.resolve(this)
  }

  /** @param {StateChange} change */
  #changeState(change) {
    Object.assign(this, { retryInMs: undefined }, change)
    if (change.state !== 'connecting') this.#disconnect()
    if (change.state === 'closed') {
      const error = closedError('hub', change.closeCode)
      this.#ready.reject(error)
      for (const member of this.#members()) member._close(error)
    }
    this.#listeners.emit('state', change.state)
  }

  #members() {
    return [...this.#subscriptions.values(), ...this.#groups]
  }

  #disconnect() {
    const error = new HubError('disconnected', 'the connection was lost before the answer came: send the command again')
    const callbacks = [...this.#callbacks.values()]
    this.#callbacks.clear()
    for (const subscription of this.#subscriptions.values()) subscription.disconnect()
    for (const callback of callbacks) callback(undefined, error)
  }

  /**
   * Send a command.
   * @param {Frame} command
   * @param {Callback} callback
   */
  _request(command, callback) {
    if (this.state !== 'live') {
      return callback(undefined, new HubError('disconnected', 'there is no connection now: send the command again later'))
    }
    if (this.#link.isFull && !ALWAYS_SENT.has(command.type)) {
      return callback(undefined, new HubError('busy', 'many commands are not sent yet: wait for their answers'))
    }
    const ref = ++this.#lastRef
    // The hub does not accept JSON with a lone surrogate, and could not tell which command had it.
    const text = JSON.stringify({ ...command, ref }).replace(SURROGATE_ESCAPE, (escape, half) => (half ? '\ufffd' : escape))
    const error = this.#sizeError(command.type, text)
    if (error) return callback(undefined, error)
    if (!UNANSWERED.has(command.type)) this.#callbacks.set(ref, callback)
    this.#link.send(text)
    if (UNANSWERED.has(command.type)) callback()
  }

  /**
   * Return an error if the hub would close the connection, with 1009, because of this command.
   * @param {string} type
   * @param {string} text
   */
  #sizeError(type, text) {
    const maxBytes = this.limits?.frameBytes ?? Infinity
    // A UTF-16 unit takes at most three bytes: most texts need not be encoded to know that they fit.
    if (text.length <= maxBytes / 3 || new TextEncoder().encode(text).length <= maxBytes) return undefined
    return new HubError('too_large', `a ${type} may have at most ${sizeText(maxBytes)}`)
  }

  /**
   * Pass an event on to the groups of its agent.
   * @param {Frame} event
   */
  _publish(event) {
    for (const group of [...this.#groups]) if (group.agentId === event.agentId) group._receive(event)
  }

  /** @param {Subscription} subscription */
  _removeSubscription(subscription) {
    this.#subscriptions.delete(subscription.sessionId)
  }

  /** @param {Group} group */
  _removeGroup(group) {
    this.#groups.delete(group)
  }

  /** @param {string} agentId */
  _hasGroup(agentId) {
    return [...this.#groups].some((group) => group.agentId === agentId)
  }
}

/**
 * Write a size in bytes for people, exactly; hub/limits.py does the same.
 * @param {number} size
 */
function sizeText(size) {
  if (size % 1024 ** 2 === 0) return `${size / 1024 ** 2} MiB`
  return size % 1024 === 0 ? `${size / 1024} KiB` : `${size} bytes`
}
