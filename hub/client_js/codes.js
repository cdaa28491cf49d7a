// The tables of hub/messages/codes.py: tests/docs/test_shape.py compares the constants.

export const FINAL_CLOSES = new Set([1000, 1002, 1003, 1007, 1008, 1009, 1010])
export const [FINAL_FROM, FINAL_TO] = [4500, 4999]
export const [WRONG_TOKEN, NO_TOKEN] = [4500, 4502]
export const CLOSE_TEXTS = new Map([
  [4500, 'the hub does not accept the token of this client: use another one'],
  [4502, 'the hub needs a token, and this client has none: connect with a key or another token'],
  [4503, 'the token of this client was revoked: use another one'],
  [4504, 'the principal of this client has too many connections: close one first'],
  [4507, 'this client may not read what it asked for: ask the operator of the hub'],
])
export const RETRYABLE = new Set(['disconnected', 'busy', 'draining', 'internal', 'rate_limited', 'storage_unavailable', 'unavailable'])
export const COMPLETE_REASONS = new Set(['end_turn', 'max_tokens', 'refused', 'tool_calls'])

/**
 * Return true if the client must not reconnect after this close code.
 * @param {number} closeCode
 */
export function isFinal(closeCode) {
  return FINAL_CLOSES.has(closeCode) || (closeCode >= FINAL_FROM && closeCode <= FINAL_TO)
}
