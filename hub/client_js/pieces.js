// An event or a notice that is too long for one frame comes in several frames, its pieces: join them.
// hub/messages/pieces.py does the same for the Python client; tests/docs/test_shape.py compares SPLIT_FIELDS.

/** @typedef {{ type: string, retryAfterMs?: number, [field: string]: any }} Frame  One parsed WebSocket message. */

// The fields that are cut, in a frame or inside its fields.
export const SPLIT_FIELDS = ['content', 'text', 'arguments', 'value', 'data', 'source', 'parts', 'history', 'messages', 'agents', 'delta', 'messageIds']

/**
 * Return true if the next frame may continue this one: it has `more`, or it is an event without a `seq`.
 * @param {Frame} frame
 */
export const isPiece = (frame) => frame.more || (frame.ts !== undefined && frame.seq === undefined)

/**
 * Return true if the frame *next* continues the piece *first*.
 * @param {Frame} first
 * @param {Frame} next
 */
export const isContinuation = (first, next) => first.type === next.type && first.messageId === next.messageId

/**
 * Join two pieces: append the fields that are cut, and take the other fields from the second piece.
 * @template {Record<string, any>} T
 * @param {T} first
 * @param {T} next
 * @returns {T}
 */
export function joinPieces(first, next) {
  /** @type {Record<string, any>} */
  const joined = { ...first, ...next }
  for (const name of SPLIT_FIELDS) if (first[name] !== undefined) joined[name] = joinValues(first[name], next[name])
  if (first.offset !== undefined) joined.offset = first.offset
  if (!next.more) delete joined.more
  return /** @type {T} */ (joined)
}

/**
 * @param {any} first
 * @param {any} next
 */
function joinValues(first, next) {
  if (next === undefined) return first
  if (!Array.isArray(first)) return typeof first === 'object' ? joinPieces(first, next) : first + next
  /** @type {any[]} */
  const items = []
  for (const item of [...first, ...next]) {
    if (items.at(-1)?.more) items.push(joinPieces(items.pop(), item))
    else items.push(item)
  }
  return items
}
