// The hub's files in the parts of messages.
import { hubAddress } from './addresses.js'

/** Return the file that a part names, as the client takes it for the next message; undefined if there is none. */
function fileOf({ source, metadata }) {
  if (source?.type !== 'file' || source.provider !== 'hubbub') return undefined
  return { fileId: source.value, type: source.mimeType ?? '', name: nameOf({ metadata }) ?? source.value }
}

const nameOf = ({ metadata }) => (typeof metadata?.name === 'string' && metadata.name) || undefined

/** Return the files that parts name. */
export const filesOf = (parts) => (parts ?? []).flatMap((part) => fileOf(part) ?? [])

export const fileAddress = (fileId) => hubAddress(`/api/v1/files/${encodeURIComponent(fileId)}`)

/** Return the parts that a message shows besides its text. An answer shows its tool calls and results elsewhere. */
const visibleParts = (parts) => (parts ?? []).filter(({ type }) => !['text', 'tool_call', 'tool_result'].includes(type))

/** Return what to show of each part: its `label`, and its `file` if it names one. */
export const attachmentsOf = (parts) =>
  visibleParts(parts).map((part) => {
    const label = nameOf(part) ?? part.filename ?? part.source?.mimeType ?? part.type
    return { label, file: fileOf(part) }
  })

/** Return the parts that stay with a message whose text is edited. */
export const remainingParts = (parts) => {
  const remaining = visibleParts(parts)
  return remaining.length ? remaining : undefined
}

/** Return parts that show files before they are uploaded. */
export const previewParts = (files) => files.map(({ name }) => ({ type: 'document', metadata: { name } }))
