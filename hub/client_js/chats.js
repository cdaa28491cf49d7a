import { Chat } from './chat.js'
import { Cursor } from './cursor.js'
import { HubError } from './errors.js'
import { newId } from './ids.js'

/** @import * as client from './client.js' */
/** @import { Hub } from './hub.js' */
/** @import { Frame } from './pieces.js' */
/** @import { Subscription } from './subscription.js' */

const MAX_OPEN_CHATS = 100
const MAX_RECENT_EVENTS = 1000
const SENT_AGAIN = new Set(['disconnected', 'draining']) // after these errors a chat waits for the next connection

/**
 * The open chats of a session object: not accepted yet, or still being answered and read.
 *
 * They are sent in the order of the calls: a chat whose files are still being uploaded holds back later ones.
 */
export class Chats {
  #hub
  #subscription
  #onAccept
  /** @type {Set<Chat>} */
  #chats = new Set()
  // The events since the oldest chat that is not accepted: the hub may send an answer's first events before `accepted`.
  /** @type {{ event: Frame, previousSeq: number }[]} */
  #recent = []

  /**
   * @param {Hub} hub
   * @param {Subscription} subscription
   * @param {(seq: number) => void} onAccept  Called with the number of an accepted message, before its answer is read.
   */
  constructor(hub, subscription, onAccept) {
    this.#hub = hub
    this.#subscription = subscription
    this.#onAccept = onAccept
  }

  /**
   * Send a message as soon as its files are uploaded and there is a connection.
   * @param {string} message
   * @param {client.ChatOptions} options
   * @param {HubError} [error]  The chat is closed with this error at once.
   */
  add(message, { clientMsgId = newId(), agent, ifBusy, parts, metadata, files, onProgress, signal }, error) {
    const { sessionId } = this.#subscription
    const command = { type: 'chat', sessionId, message, agentId: agent, clientMsgId, ifBusy, parts, metadata }
    // A message that is not accepted yet is still sent, although its reader may have left.
    const chat = new Chat(command, () => (chat.isClosed || chat.runId) && this.#chats.delete(chat))
    if (!error && this.#chats.size >= MAX_OPEN_CHATS) {
      error = new HubError('busy', `${MAX_OPEN_CHATS} chats of this session are not answered yet: wait for an answer`)
    }
    if (error) {
      chat._close(error)
      return chat
    }
    this.#chats.add(chat)
    if (files?.length) this.#attach(chat, files, { onProgress, signal })
    else this.sendReady()
    return chat
  }

  /**
   * Upload the files of a chat, add their parts to it, and send it.
   * @param {Chat} chat
   * @param {(client.FileContent | client.StoredFile)[]} files
   * @param {client.UploadOptions} options
   */
  async #attach(chat, files, { onProgress, signal }) {
    chat._isReady = false
    const controller = new AbortController()
    const abort = () => controller.abort(signal?.reason)
    if (signal?.aborted) abort()
    signal?.addEventListener('abort', abort)
    chat._onAbandon = () => controller.abort()
    try {
      const parts = await this.#hub._files.makeParts(this.#subscription.sessionId, files, onProgress, controller.signal)
      chat._command.parts = [...(chat._command.parts ?? []), ...parts]
    } catch (error) {
      chat._close(/** @type {HubError} */ (error))
    }
    signal?.removeEventListener('abort', abort)
    chat._isReady = true
    this.sendReady()
  }

  /** Send the chats that are ready, up to the first one that is not. */
  sendReady() {
    if (this.#hub.state !== 'live') return
    for (const chat of this.#unaccepted()) {
      if (!chat._isReady) return
      if (!chat._isSent) this.#send(chat)
    }
  }

  disconnect() {
    for (const chat of this.#chats) chat._isSent = false
  }

  #unaccepted() {
    return [...this.#chats].filter((chat) => !chat.runId)
  }

  /** @param {Chat} chat */
  #send(chat) {
    chat._isSent = true
    this.#hub._request(chat._command, (accepted, error) => {
      if (error) return SENT_AGAIN.has(error.code) || chat._close(error)
      if (!chat.isClosed) this.#accept(chat, accepted)
      if (!this.#unaccepted().length) this.#recent = []
    })
  }

  /**
   * @param {Chat} chat
   * @param {Frame} accepted
   */
  #accept(chat, accepted) {
    const { seq } = accepted
    const index = this.#recent.findIndex(({ event }) => event.seq === seq)
    chat._begin(accepted, new Cursor(index < 0 ? seq - 1 : seq, this.#subscription.epoch))
    this.#onAccept(seq)
    if (index >= 0) for (const { event, previousSeq } of this.#recent.slice(index + 1)) chat._take(event, previousSeq)
    else if (this.#subscription.isRefused || !chat.isClosed) this.#subscription.startIfPast(seq)
  }

  /** Return the cursors of the chats that are accepted. */
  cursors() {
    return [...this.#chats].flatMap(({ _cursor }) => (_cursor ? [_cursor] : []))
  }

  /**
   * Give an event to the chats; return true if one of them lacks events before it.
   * @param {Frame} event
   * @param {number} previousSeq
   * @param {boolean} acceptGap
   */
  take(event, previousSeq, acceptGap) {
    const results = [...this.#chats].map((chat) => chat._take(event, previousSeq, acceptGap))
    return results.includes(null)
  }

  /**
   * Remember an event for a chat whose `accepted` comes after it.
   * @param {Frame} event
   * @param {number} previousSeq
   */
  remember(event, previousSeq) {
    if (this.#unaccepted().length) this.#recent = [...this.#recent.slice(-MAX_RECENT_EVENTS), { event, previousSeq }]
  }

  /**
   * @param {Frame} reset
   * @param {client.Run[]} active
   */
  reset(reset, active) {
    this.#recent = []
    for (const chat of [...this.#chats]) {
      if (chat.runId) chat._reset(reset, active.some(({ runId }) => runId === chat.runId))
    }
  }

  /**
   * @param {Frame} reset
   * @param {number} seq
   */
  resetBefore(reset, seq) {
    for (const chat of [...this.#chats]) if (chat._cursor?.seq !== undefined && chat._cursor.seq < seq) chat._reset(reset, false)
  }

  /** @param {HubError} error */
  close(error) {
    for (const chat of [...this.#chats]) chat._close(error)
  }
}
