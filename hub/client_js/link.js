import { NO_TOKEN, WRONG_TOKEN, isFinal } from './codes.js'
import { isContinuation, isPiece, joinPieces } from './pieces.js'

/** @import { ConnectOptions, State } from './client.js' */
/** @import { Frame } from './pieces.js' */
/** @import { TokenSource } from './token.js' */

/**
 * The new state of a link; `waiting` and `closed` say why the last socket closed.
 * @typedef {{ state: State, retryInMs?: number, closeCode?: number, closeReason?: string }} StateChange
 */

/**
 * The hub object, which receives all frames and all states but `live`: it sets that itself, at the welcome.
 * @typedef {{ receive: (frame: Frame) => void, changeState: (change: StateChange) => void }} Receiver
 */

const ANSWER_TIMEOUT_MS = 10_000 // for the welcome, and for any frame after a ping
const FIRST_RETRY_MS = 250
const MAX_RETRY_MS = 15_000
const MAX_UNSENT_BYTES = 16 * 1024 ** 2 // hub/client/link.py has the same limit
const HELLO_REF = 'hello'

/**
 * Return the frame in a message, or undefined if there is none.
 * @param {string} data
 * @returns {Frame | undefined}
 */
function parseFrame(data) {
  try {
    const frame = JSON.parse(data)
    return typeof frame?.type === 'string' ? frame : undefined
  } catch {
    return undefined
  }
}

/** A connection that lasts: it opens a socket, sends heartbeats, and retries with backoff until a final close code. */
export class Link {
  /** @type {State} */
  state = 'connecting'
  #url
  #WebSocket
  #tokens
  #receiver
  /** @type {any} */
  #socket
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer // one at a time: for the welcome, the next ping, the answer to a ping, or the next try
  #attempts = 0
  #retryAfterMs = 0
  #isAlive = false // a frame came since the last ping
  /** @type {Frame | undefined} */
  #piece // the pieces joined so far
  #heartbeatMs = 0
  #onWake = (/** @type {globalThis.Event} */ { type }) => {
    if (type === 'online' || document.visibilityState === 'visible') this.#checkNow()
  }

  /**
   * Open the first socket. Throws a SyntaxError if *url* is not the address of a WebSocket.
   * @param {string} url
   * @param {NonNullable<ConnectOptions['WebSocket']>} WebSocket
   * @param {TokenSource} tokens
   * @param {Receiver} receiver
   */
  constructor(url, WebSocket, tokens, receiver) {
    this.#url = url
    this.#WebSocket = WebSocket
    this.#tokens = tokens
    this.#receiver = receiver
    this.#open()
    globalThis.addEventListener?.('online', this.#onWake)
    globalThis.document?.addEventListener('visibilitychange', this.#onWake)
  }

  #open() {
    this.#piece = undefined
    const socket = (this.#socket = new this.#WebSocket(this.#url, 'hubbub.v1'))
    socket.onopen = () => this.#sayHello(socket)
    socket.onmessage = (/** @type {{ data: string }} */ { data }) => {
      if (socket !== this.#socket) return
      const frame = parseFrame(data)
      if (frame) this.#receive(frame)
      else this.#retry(1006, 'the hub sent a frame that is no JSON object, or whose type is no text')
    }
    socket.onclose = (/** @type {{ code: number, reason: string }} */ { code, reason }) => {
      if (socket === this.#socket) this.#retry(code, reason)
    }
    socket.onerror = () => {} // onclose follows; without a listener, an error would end a Node.js process
    this.#setTimer(ANSWER_TIMEOUT_MS, () => this.#retry(1006, 'no welcome came'))
    if (this.state !== 'connecting') this.#changeState({ state: 'connecting' })
  }

  /**
   * Sign in, or learn at once that the hub needs a token. A browser cannot send headers with a WebSocket.
   * @param {any} socket
   */
  async #sayHello(socket) {
    let token
    try {
      token = await this.#tokens.renew()
    } catch (error) {
      if (socket === this.#socket) this.#retry(1006, `the token function failed: ${error}`)
      return
    }
    if (socket !== this.#socket || socket.readyState !== 1) return
    this.send(JSON.stringify({ type: 'hello', token, ref: HELLO_REF }))
  }

  /** @param {StateChange} change */
  #changeState(change) {
    this.state = change.state
    this.#receiver.changeState(change)
  }

  /**
   * @param {number} ms
   * @param {() => void} action
   */
  #setTimer(ms, action) {
    clearTimeout(this.#timer)
    this.#timer = setTimeout(action, ms)
  }

  /** Return true if the connection takes commands more slowly than the program sends them. */
  get isFull() {
    return (this.#socket?.bufferedAmount ?? 0) >= MAX_UNSENT_BYTES
  }

  /** @param {string} text */
  send(text) {
    this.#socket.send(text)
  }

  /**
   * Join the pieces of an event or a notice; no other frame comes between them.
   * @param {Frame} frame
   */
  #receive(frame) {
    this.#isAlive = true
    const piece = this.#piece
    this.#piece = undefined
    if (piece && isContinuation(piece, frame)) frame = joinPieces(piece, frame)
    else if (piece) this.#handle(piece) // it was complete: a message after a reset has no seq either
    if (isPiece(frame)) this.#piece = frame
    else this.#handle(frame)
  }

  /** @param {Frame} frame */
  #handle(frame) {
    if (frame.type === 'error' && frame.ref === HELLO_REF && frame.code === 'unauthenticated') {
      return this.close(this.#tokens.exists ? WRONG_TOKEN : NO_TOKEN, frame.code)
    }
    if (frame.type === 'welcome') {
      // A hub without sign-in, and one that knows a cookie, welcomes a client at once, and again after `hello`.
      if (this.state === 'live' || (this.#tokens.exists && frame.ref !== HELLO_REF)) return
      this.state = 'live'
      this.#retryAfterMs = 0
      this.#heartbeatMs = frame.heartbeatMs
      this.#setTimer(this.#heartbeatMs, () => this.#ping())
    } else if (frame.type !== 'error') {
      this.#attempts = 0 // not at the welcome: the backoff must grow if the hub cuts each connection right after it
    } else if (frame.ref === undefined || frame.code === 'draining') {
      this.#retryAfterMs = frame.retryAfterMs ?? 0
    }
    this.#receiver.receive(frame)
  }

  #ping() {
    const timeoutMs = Math.min(ANSWER_TIMEOUT_MS, this.#heartbeatMs)
    this.#isAlive = false
    this.send('{"type":"ping"}')
    this.#setTimer(timeoutMs, () => {
      if (this.#isAlive) this.#setTimer(this.#heartbeatMs - timeoutMs, () => this.#ping())
      else this.#retry(1006, 'no frame came after a ping')
    })
  }

  /** Do not wait for the timer when the network is back, or a person looks at the page again. */
  #checkNow() {
    if (this.state === 'waiting') this.#open()
    else if (this.state === 'live') this.#ping()
  }

  /**
   * Leave the socket, and open another one after a random time with exponential backoff.
   * @param {number} closeCode
   * @param {string} closeReason
   */
  #retry(closeCode, closeReason) {
    const socket = this.#socket
    if (isFinal(closeCode)) return this.close(closeCode, closeReason)
    this.#socket = undefined
    // On a half-open connection the closing handshake takes long. Do not wait for it.
    if (socket.terminate) socket.terminate()
    else socket.close()
    const maxMs = Math.min(MAX_RETRY_MS, FIRST_RETRY_MS * 2 ** this.#attempts++)
    const retryInMs = Math.round(this.#retryAfterMs + Math.random() * maxMs)
    this.#setTimer(retryInMs, () => this.#open())
    this.#changeState({ state: 'waiting', retryInMs, closeCode, closeReason })
  }

  /**
   * Close the socket for good.
   * @param {number} closeCode
   * @param {string} closeReason
   */
  close(closeCode, closeReason) {
    if (this.state === 'closed') return
    const socket = this.#socket
    this.#socket = undefined
    clearTimeout(this.#timer)
    globalThis.removeEventListener?.('online', this.#onWake)
    globalThis.document?.removeEventListener('visibilitychange', this.#onWake)
    socket?.close(1000)
    this.#changeState({ state: 'closed', closeCode, closeReason })
  }
}
