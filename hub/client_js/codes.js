// The tables of hub/messages/codes.py: tests/docs/test_shape.py compares the four constants.

export const FINAL_CLOSES = new Set([1000, 1002, 1003, 1007, 1008, 1009, 1010])
export const [FINAL_FROM, FINAL_TO] = [4500, 4999]
export const RETRYABLE = new Set(['disconnected', 'busy', 'draining', 'internal', 'rate_limited', 'storage_unavailable', 'unavailable'])
export const COMPLETE_REASONS = new Set(['end_turn', 'max_tokens', 'refused', 'tool_calls'])

/**
 * Return true if the client must not reconnect after this close code.
 * @param {number} closeCode
 */
export function isFinal(closeCode) {
  return FINAL_CLOSES.has(closeCode) || (closeCode >= FINAL_FROM && closeCode <= FINAL_TO)
}
