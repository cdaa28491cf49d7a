/** @import * as client from './client.js' */

const PART_TYPES = new Set(['image', 'audio', 'video']) // by the first half of the media type; all others: document

/**
 * Return the part of a message that names a file of its session; hub/messages/parts.py makes the same.
 * @param {client.StoredFile} file
 * @returns {client.Part}
 */
export function makePart({ fileId, type, name }) {
  const prefix = type.split('/')[0].toLowerCase()
  const kind = /** @type {'document'} */ (PART_TYPES.has(prefix) ? prefix : 'document')
  return { type: kind, source: { type: 'file', value: fileId, provider: 'hubbub', mimeType: type }, metadata: { name } }
}
