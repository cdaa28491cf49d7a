import { hubAddress } from './addresses.js'

const JSON_BODY = { 'Content-Type': 'application/json' }

/**
 * Send a request to a path of the hub; return the JSON of the answer. Throws an Error with the hub's message and its `code`.
 *
 * If the hub does not know who asks, the page also gets the event `unauthenticated`.
 */
export async function fetchJson(path, options) {
  const answer = await fetch(hubAddress(path), options)
  const body = answer.status === 204 ? {} : await answer.json()
  if (answer.status === 401) dispatchEvent(new Event('unauthenticated'))
  if (!answer.ok) throw Object.assign(new Error(body.error), { code: body.code })
  return body
}

/** Send a request with a JSON body. */
export const sendJson = (method, path, body) => fetchJson(path, { method, headers: JSON_BODY, body: JSON.stringify(body) })
