/** @import { Frame } from './pieces.js' */

/**
 * The position of one reader in a session. The reader gets each event once, and of a longer piece only the new text.
 *
 * After a reconnect the hub may join neighbouring `stream` events of one run into one: its text may begin before the
 * cursor. No other events are joined.
 */
export class Cursor {
  /** @type {number | undefined} */
  seq // of the last event
  /** @type {string | undefined} */
  epoch
  isFresh // the next event may have any number: the hub chooses the beginning
  /** @type {Map<string, { messageId: string, length: number }>} */
  #texts = new Map() // by runId: the last message of the run, and how many code points of it the reader has

  /**
   * @param {number} [seq]
   * @param {string} [epoch]
   */
  constructor(seq, epoch) {
    this.seq = seq
    this.epoch = epoch
    this.isFresh = seq === undefined
  }

  restart() {
    this.isFresh = true
    this.#texts.clear()
  }

  /**
   * Advance to an event, and return what is new in it: undefined for nothing, null if events before it are missing.
   *
   * @param {Frame} event
   * @param {number} previousSeq  The number of the event before it in the stream.
   * @param {boolean} [acceptGap]  Advance although events are missing.
   */
  take(event, previousSeq, acceptGap) {
    if (!this.isFresh && this.seq !== undefined && event.seq <= this.seq) return undefined
    const length = this.#lengthAt(event)
    const skip = length === undefined ? 0 : length - event.offset
    if (!this.isFresh && !acceptGap && !(skip >= 0 && this.#isNext(event, previousSeq, length))) return null
    const newEvent = skip > 0 ? { ...event, content: [...event.content].slice(skip).join(''), offset: length } : event
    this.seq = event.seq
    this.epoch = event.epoch
    this.isFresh = false
    if (newEvent.type === 'stream') {
      this.#texts.set(event.runId, { messageId: event.messageId, length: newEvent.offset + [...newEvent.content].length })
    }
    if (event.type === 'run_finished') this.#texts.delete(event.runId)
    return newEvent
  }

  /**
   * Return how much the reader has of the event's message; undefined if nothing is known of its run.
   * @param {Frame} event
   */
  #lengthAt({ type, runId, messageId }) {
    const text = type === 'stream' ? this.#texts.get(runId) : undefined
    return text && (text.messageId === messageId ? text.length : 0)
  }

  /**
   * @param {Frame} event
   * @param {number} previousSeq
   * @param {number | undefined} length
   */
  #isNext(event, previousSeq, length) {
    if (event.type === 'stream') return length !== undefined || previousSeq === this.seq
    return event.seq === previousSeq + 1
  }
}
