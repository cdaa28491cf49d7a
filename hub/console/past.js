// Past sessions, from HTTP: the newest first, each with its name or the first thing that was said in it.
import { cut } from './html.js'
import { ask } from './talk.js'

const SOON_MS = 400
const ADDRESS = '/api/v1/sessions'
const JSON_BODY = { 'Content-Type': 'application/json' }

const LONGEST = 200 // code points of a title

/** A name for a fork: that of its session with a number, the first that is free. */
export function another(title, sessions) {
  const base = title.replace(/ \(\d+\)$/, '')
  const taken = new Set(sessions.map((one) => one.title))
  for (let number = 2; ; number++) {
    const end = ` (${number})`
    const name = cut(base, LONGEST - end.length) + end
    if (!taken.has(name)) return name
  }
}

export function past(ui, change) {
  const firsts = new Map() // sessionId -> the beginning of its first message
  let timer
  let slices = 1
  let turn = 0
  let forgotten = 0 // how often

  const place = (sessionId) => `${ADDRESS}/${encodeURIComponent(sessionId)}`

  async function refresh() {
    const mine = ++turn
    try {
      const { sessions, more } = await newest()
      const once = [...new Map(sessions.map((one) => [one.sessionId, one])).values()].filter(
        ({ messages }) => messages > 0,
      )
      if (mine === turn)
        change({
          past: { sessions: once.map(named), more, failed: false, loaded: true },
        })
      await Promise.all(once.map(learn))
      if (mine === turn) change({ past: { ...ui.past, sessions: once.map(named) } })
    } catch {
      if (mine === turn) change({ past: { ...ui.past, failed: true } })
    }
  }

  /** The newest sessions, one slice after the other. */
  async function newest() {
    const sessions = []
    let query = ''
    let more = true
    for (let slice = 0; more && slice < slices; slice++) {
      const some = await ask(ADDRESS + query)
      sessions.push(...some.data)
      more = some.more
      query = `?after=${some.next}`
    }
    return { sessions, more }
  }

  const named = (one) => ({ ...one, title: one.title || firsts.get(one.sessionId) })

  async function learn({ sessionId, title }) {
    if (title || firsts.has(sessionId)) return
    const before = forgotten
    const { data } = await ask(`${place(sessionId)}/messages?limit=1`)
    if (data.length && before === forgotten) firsts.set(sessionId, cut(data[0].content.trim(), 80))
  }

  function soon() {
    clearTimeout(timer)
    timer = setTimeout(refresh, SOON_MS)
  }

  return {
    refresh,
    soon,
    learn,
    first: (sessionId) => firsts.get(sessionId),
    /** Take back by what words a session is known: they may have been taken back. */
    forget(sessionId) {
      forgotten++ // what is on its way may still have them
      const words = firsts.get(sessionId)
      firsts.delete(sessionId)
      const sessions = ui.past.sessions.map((one) =>
        one.sessionId === sessionId && one.title === words ? { ...one, title: undefined } : one,
      )
      change({ past: { ...ui.past, sessions } })
      soon()
    },
    more() {
      slices++
      return refresh()
    },
    async rename(sessionId, title) {
      await ask(place(sessionId), {
        method: 'PATCH',
        headers: JSON_BODY,
        body: JSON.stringify({ title: title || null }),
      })
      await refresh()
    },
    async remove(sessionId) {
      await ask(place(sessionId), { method: 'DELETE' })
      await refresh()
    },
  }
}
