// Who uses the page, while sign-in is on. A page whose credential is not valid any more goes to the page /sign-in.
import { hubAddress } from './addresses.js'
import { fetchJson } from './http.js'
import { hasNames } from './rights.js'
import { clear } from './store.js'

const SIGNED_OUT = new Set([4500, 4502, 4503]) // close codes: the credential is wrong, did not come, or was revoked

/** Make the object that keeps `ui.me` up to date: { id, name, role, isSignInOn }. */
export function makeAccount(hub, ui, change) {
  const leave = () => location.assign(hubAddress('/sign-in'))

  /** Return true if the page knows who uses it; if nobody is signed in, the page is left. */
  async function load() {
    try {
      change({ me: await fetchJson('/api/v1/me') })
      return true
    } catch {
      return false
    }
  }

  hub.on('welcome', ({ principal }) => change({ me: { ...ui.me, ...principal } }))
  hub.on('state', (link) => {
    if (link === 'closed' && SIGNED_OUT.has(hub.closeCode)) leave()
    // The hub keeps a connection without a credential open, but sends nothing.
    if (link === 'live' || (link === 'connecting' && hasNames(ui))) load()
  })
  addEventListener('unauthenticated', leave)

  return {
    load,
    /** Sign out and leave the page. Return false if something else, such as a proxy, signs the person in. */
    async signOut() {
      await fetchJson('/api/v1/sign-out', { method: 'POST' })
      clear() // the drafts are not for the next person
      return !(await load())
    },
  }
}
