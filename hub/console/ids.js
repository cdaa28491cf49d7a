const ID = /^[A-Za-z0-9._:@-]{1,128}$/
const LOCAL_HOST = /^(localhost|.*\.localhost|127(\.\d+){3}|\[::1\])$/

/** Return true if the hub accepts this text as an id. */
export const isId = (text) => ID.test(text)

/** Return true if the name of a host stands for this machine. */
export const isLocal = (host) => LOCAL_HOST.test(host)

/** Make a random id for a session; short, because people see it in the address. */
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(12))
  return 's-' + [...bytes].map((byte) => (byte % 36).toString(36)).join('')
}
