// The list of sessions, newest first. A session without a title is shown with its first message.
import { cut } from './html.js'
import { fetchJson, sendJson } from './http.js'

const REFRESH_MS = 400
const ADDRESS = '/api/v1/sessions'
const MAX_TITLE = 200 // code points

/** Return a title for a fork: the title of its session with the first free number. */
export function forkTitle(title, sessions) {
  const base = title.replace(/ \(\d+\)$/, '')
  const titles = new Set(sessions.map((session) => session.title))
  for (let number = 2; ; number++) {
    const suffix = ` (${number})`
    const numbered = cut(base, MAX_TITLE - suffix.length) + suffix
    if (!titles.has(numbered)) return numbered
  }
}

/** Make the object that loads and changes the list; it shows its state with change({ list }). */
export function sessionList(ui, change) {
  const firstMessages = new Map() // sessionId -> the beginning of its first message
  let timer
  let pageCount = 1
  let refreshes = 0 // only the last refresh() may change the list
  let forgets = 0

  const addressOf = (sessionId) => `${ADDRESS}/${encodeURIComponent(sessionId)}`
  const withTitle = (session) => ({ ...session, title: session.title || firstMessages.get(session.sessionId) })

  async function refresh() {
    const refreshId = ++refreshes
    try {
      const { sessions, more } = await loadPages()
      const unique = [...new Map(sessions.map((session) => [session.sessionId, session])).values()]
      const shown = unique.filter(({ messages }) => messages > 0)
      if (refreshId === refreshes) change({ list: { sessions: shown.map(withTitle), more, failed: false, loaded: true } })
      await Promise.all(shown.map(loadFirstMessage))
      if (refreshId === refreshes) change({ list: { ...ui.list, sessions: shown.map(withTitle) } })
    } catch {
      if (refreshId === refreshes) change({ list: { ...ui.list, failed: true } })
    }
  }

  async function loadPages() {
    const sessions = []
    let query = ''
    let more = true
    for (let count = 0; more && count < pageCount; count++) {
      const page = await fetchJson(ADDRESS + query)
      sessions.push(...page.data)
      more = page.more
      query = `?after=${page.next}`
    }
    return { sessions, more }
  }

  async function loadFirstMessage({ sessionId, title }) {
    if (title || firstMessages.has(sessionId)) return
    const forgetsBefore = forgets
    const { data } = await fetchJson(`${addressOf(sessionId)}/messages?limit=1`)
    if (data.length && forgetsBefore === forgets) firstMessages.set(sessionId, cut(data[0].content.trim(), 80))
  }

  function refreshSoon() {
    clearTimeout(timer)
    timer = setTimeout(refresh, REFRESH_MS)
  }

  return {
    refresh,
    refreshSoon,
    loadFirstMessage,
    firstMessage: (sessionId) => firstMessages.get(sessionId),
    /** Forget the first message of a session: it may be one of the messages that were taken back. */
    forget(sessionId) {
      forgets++ // a request that is under way may still answer with it
      const message = firstMessages.get(sessionId)
      firstMessages.delete(sessionId)
      const sessions = ui.list.sessions.map((session) =>
        session.sessionId === sessionId && session.title === message ? { ...session, title: undefined } : session,
      )
      change({ list: { ...ui.list, sessions } })
      refreshSoon()
    },
    loadMore() {
      pageCount++
      return refresh()
    },
    async rename(sessionId, title) {
      await sendJson('PATCH', addressOf(sessionId), { title: title || null })
      await refresh()
    },
    async remove(sessionId) {
      await fetchJson(addressOf(sessionId), { method: 'DELETE' })
      await refresh()
    },
  }
}
