import { CLOSE_TEXTS, RETRYABLE } from './codes.js'

/** @import { HubErrorDetails } from './client.js' */
/** @import { Frame } from './pieces.js' */

/** An error of the hub or of the connection. Programs compare `code`, which is stable; the message is for people. */
export class HubError extends Error {
  /**
   * What an answer that ended early had said; set by `ask()` and `text()`.
   * @type {string | undefined}
   */
  text

  /**
   * @param {string} code
   * @param {string} message
   * @param {HubErrorDetails} [details]
   */
  constructor(code, message, { retryable, retryAfterMs, sessionId, agentId, runId, clientMsgId } = {}) {
    super(message)
    this.name = 'HubError'
    this.code = code
    this.retryable = retryable ?? (RETRYABLE.has(code) || retryAfterMs !== undefined)
    this.retryAfterMs = retryAfterMs
    this.sessionId = sessionId
    this.agentId = agentId
    this.runId = runId
    this.clientMsgId = clientMsgId
  }
}

/**
 * Make the error that a frame of type `error` or `run_error` describes.
 * @param {Frame} frame
 */
export const errorFromFrame = (frame) => new HubError(frame.code, frame.message, frame)

/**
 * Make the error of everything that waits when its owner is closed.
 * @param {'hub' | 'session'} owner
 * @param {number} [closeCode]  The code of the connection, if the hub has closed it.
 */
export const closedError = (owner, closeCode) =>
  new HubError('closed', CLOSE_TEXTS.get(closeCode ?? 0) ?? `this ${owner} is closed: open a new one`)

/**
 * Make the error of an HTTP response: that of the hub, or one of this client if the response is of a proxy.
 * @param {Response} response
 */
export async function errorFromResponse(response) {
  const body = await response.json().catch(() => ({}))
  const { status } = response
  const seconds = Number(response.headers.get('Retry-After') ?? NaN)
  const retryAfterMs = Number.isNaN(seconds) ? undefined : seconds * 1000
  const retryable = status >= 500 || status === 429 || retryAfterMs !== undefined || RETRYABLE.has(body.code)
  const details = { retryable, retryAfterMs, sessionId: body.sessionId }
  const text = `a proxy or another server, and not a hub, answered with HTTP ${status}: check the proxy in front of the hub`
  return new HubError(body.code ?? `http_${status}`, body.error ?? text, details)
}
