/** Send a request to the hub; return the JSON of the answer. Throws an Error with the hub's message. */
export async function fetchJson(address, options) {
  const answer = await fetch(address, options)
  const body = answer.status === 204 ? {} : await answer.json()
  if (!answer.ok) throw new Error(body.error)
  return body
}
