// The members and the invite links of a session, over HTTP.
import { fetchJson, sendJson } from './http.js'

const addressOf = (sessionId, part) => `/api/v1/sessions/${encodeURIComponent(sessionId)}/${part}`

/** Return the members and the valid invites; only an owner gets the invites. */
export async function loadSharing(sessionId, isOwner) {
  const [members, invites] = await Promise.all([
    fetchJson(addressOf(sessionId, 'members')),
    isOwner ? fetchJson(addressOf(sessionId, 'invites')) : { data: [] },
  ])
  return { members: members.data, invites: invites.data }
}

/** Give a member another role; null removes the member. */
export const changeMember = (sessionId, id, role) => sendJson('PATCH', addressOf(sessionId, 'members'), { id, role })

/** Make an invite; its `link` is only in this answer. */
export const createInvite = (sessionId, role) => sendJson('POST', addressOf(sessionId, 'invites'), { role })

export const revokeInvite = (sessionId, inviteId) =>
  fetchJson(addressOf(sessionId, `invites/${encodeURIComponent(inviteId)}`), { method: 'DELETE' })
