import { StoreListeners } from './store_listeners.js'
import { Transcript } from './transcript.js'

/** @import * as client from './client.js' */
/** @import { Conversation, ConversationOptions } from './react.js' */

const HISTORY = 100
const NOT_RUNNING = 'not_running'

/**
 * The state of one session for React: a snapshot, which is replaced at each change.
 *
 * The session is open as long as there is a listener.
 */
export class ConversationStore {
  #hub
  #sessionId
  #options
  /** @type {client.Session | undefined} */
  #session
  #transcript = new Transcript()
  #listeners = new StoreListeners(() => this.#open(), () => this.#close())
  /** @type {client.Off[]} */
  #offs = []
  /** @type {client.HubError | undefined} */
  #error
  /** @type {Conversation} */
  #snapshot

  /**
   * @param {client.Hub} hub
   * @param {string} sessionId
   * @param {ConversationOptions} options
   */
  constructor(hub, sessionId, options) {
    this.#hub = hub
    this.#sessionId = sessionId
    this.#options = options
    this.#snapshot = this.#makeSnapshot()
  }

  getSnapshot = () => this.#snapshot

  subscribe = this.#listeners.subscribe

  #open() {
    if (this.#session || this.#hub.state === 'closed') return
    const { agent, history = HISTORY } = this.#options
    const session = (this.#session = this.#hub.session(this.#sessionId, { agent, history }))
    this.#offs = [
      session.on('subscribed', (answer) => this.#change(() => answer.history && this.#transcript.begin(answer.history))),
      session.on('event', (event) => this.#change(() => this.#transcript.apply(event))),
      session.on('reset', ({ messages }) => this.#change(() => this.#transcript.begin(messages))),
      session.on('error', (error) => this.#fail(error)),
      this.#hub.on('state', () => this.#change(() => {})),
    ]
    this.#change(() => {})
  }

  #close() {
    for (const off of this.#offs) off()
    this.#session?.close()
    this.#session = undefined
    this.#offs = []
    this.#transcript = new Transcript()
    this.#snapshot = this.#makeSnapshot()
  }

  /** @param {() => void} change */
  #change(change) {
    change()
    this.#snapshot = this.#makeSnapshot()
    this.#listeners.notify()
  }

  /** @param {unknown} error */
  #fail(error) {
    this.#change(() => (this.#error = /** @type {client.HubError} */ (error)))
  }

  /** @returns {Conversation} */
  #makeSnapshot() {
    const { messages, questions, members, isRunning } = this.#transcript
    const state = { messages, questions, members, isRunning, error: this.#error, connection: this.#hub.state }
    return { ...state, session: this.#session, send: this.#send, stop: this.#stop, answer: this.#answer }
  }

  /**
   * @param {string} text
   * @param {client.ChatOptions} [options]
   */
  #send = async (text, options = {}) => {
    const session = this.#session
    if (!session) return undefined
    const chat = session.chat(text, options)
    const { parts, metadata } = options
    this.#error = undefined
    this.#change(() => this.#transcript.addPending(chat.clientMsgId, text, /** @type {any} */ ({ parts, metadata })))
    chat[Symbol.asyncIterator]().return?.() // the events of the session have the answer, too
    return this.#watch(chat.accepted, () => this.#transcript.removePending(chat.clientMsgId))
  }

  #stop = async () => {
    await this.#watch(this.#session?.cancel().catch((error) => (error.code === NOT_RUNNING ? undefined : Promise.reject(error))))
  }

  /**
   * @param {string} questionId
   * @param {unknown} [payload]
   * @param {client.ReplyStatus} [status]
   */
  #answer = async (questionId, payload, status) => {
    await this.#watch(this.#session?.resume(questionId, payload, status))
  }

  /**
   * Return the result of a command. Its error is shown as the error of the conversation, and is not thrown.
   * @template T
   * @param {Promise<T> | undefined} promise
   * @param {() => void} [undo]
   */
  async #watch(promise, undo) {
    try {
      return await promise
    } catch (error) {
      undo?.()
      this.#fail(error)
      return undefined
    }
  }
}
