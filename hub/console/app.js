// The page: what it knows (ui), what can be done (act), and one drawing of it for each frame.
import { connect, HubError } from '/client.js'
import { html, render } from './html.js'
import { Follower } from './scroll.js'
import { past } from './past.js'
import { talk } from './talk.js'
import { language, t } from './words.js'
import { Page } from './views/page.js'

const PAGE = 60 // items that are on the page at first, and that are added when earlier ones are wanted
const ID = /^[A-Za-z0-9._:@-]{1,128}$/
const SLOW_MS = 8 // a drawing that takes longer is followed by a pause, so that the page stays usable

const hub = connect()
const ui = {
  link: hub.state,
  wasLive: false,
  draining: false,
  agents: [],
  agent: 'main',
  sessionId: undefined,
  session: undefined, // see session.js
  shown: PAGE,
  following: true,
  editing: undefined,
  past: { sessions: [] },
  find: '',
  drawer: false,
  dialog: undefined,
  notice: undefined,
  stopping: false,
  said: '', // for screen readers: the answer that has just come to its end
}

// --- drawing ----------------------------------------------------------------------------------------------------------

let due = false // a drawing is to come, or the pause after one goes on
let stale = false
let follower

function change(what) {
  Object.assign(ui, what)
  stale = true
  if (due) return
  due = true
  requestAnimationFrame(draw)
}

function draw() {
  const began = performance.now()
  stale = false
  render(html`<${Page} ui=${ui} act=${act} />`, document.body)
  follow()
  document.title = `${act.title()} · Hubbub`
  const took = performance.now() - began
  if (took <= SLOW_MS) rested()
  else setTimeout(rested, took * 2)
}

function rested() {
  due = false
  if (stale) change()
}

function follow() {
  const list = document.getElementById('log')
  if (list && !follower)
    follower = new Follower(list, list.firstElementChild, () => change({ following: follower.following }))
  follower?.keep()
}

const fail = (error) =>
  change({ notice: error instanceof HubError || error instanceof Error ? error.message : String(error) })

// --- what can be done -------------------------------------------------------------------------------------------------

const list = past(ui, change)
const conversation = talk(hub, ui, change, list.soon)

const act = {
  ...conversation.act,
  find: (find) => change({ find }),
  moreSessions: () => list.more(),
  againSessions: () => list.refresh(),
  drawer(open) {
    change({ drawer: open })
    requestAnimationFrame(() => document.getElementById(open ? 'menu-close' : 'menu')?.focus()) // it has been drawn by then
  },
  dialog: (dialog) => change({ dialog }),
  dismiss: () => change({ notice: undefined }),
  edit: (key) => change({ editing: key }),
  toEnd: () => follower.toEnd(),

  choose(agent) {
    change({ agent, drawer: false })
    address('replaceState')
  },

  /** Open a session, a new one where none is named. */
  open(sessionId = newId()) {
    show(sessionId, ui.agent)
    address('pushState')
  },

  earlier() {
    follower.hold(() => {
      Object.assign(ui, { shown: ui.shown + PAGE })
      render(html`<${Page} ui=${ui} act=${act} />`, document.body)
    })
    if (ui.shown > ui.session.items.length && ui.session.more) conversation.earlier().catch(fail)
  },

  async copy(text) {
    try {
      await navigator.clipboard.writeText(text)
      return true
    } catch {
      return false // not allowed here: whoever asked selects the text instead
    }
  },

  title() {
    const known = ui.past.sessions.find(({ sessionId }) => sessionId === ui.sessionId)?.title
    return known || ui.session?.items.find(({ kind }) => kind === 'user')?.text.slice(0, 80) || t('untitled')
  },

  async fork(messageId) {
    act.open(await conversation.fork(messageId))
  },

  async rename(title) {
    await list.rename(ui.sessionId, title)
    change({ dialog: undefined })
  },

  async remove() {
    await list.remove(ui.sessionId)
    change({ dialog: undefined, notice: t('removed') })
    act.open()
  },
}

for (const name of ['rename', 'remove', 'fork', 'regenerate', 'save', 'reply', 'stop', 'takeBack']) {
  const does = act[name]
  act[name] = (...values) => does(...values).catch(fail)
}

// --- where the page stands --------------------------------------------------------------------------------------------

function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(12))
  return 's-' + [...bytes].map((byte) => (byte % 36).toString(36)).join('')
}

function address(how) {
  const query = new URLSearchParams({ agent: ui.agent, session: ui.sessionId })
  history[how](null, '', `?${query}`)
}

function show(sessionId, agent) {
  follower?.toEnd()
  change({
    sessionId,
    agent,
    shown: PAGE,
    editing: undefined,
    drawer: false,
    dialog: undefined,
    stopping: false,
    said: '',
  })
  if (hub.state !== 'closed') conversation.open(sessionId)
}

function start() {
  const query = new URLSearchParams(location.search)
  const [sessionId, agent] = [query.get('session') || newId(), query.get('agent') || 'main']
  if (!ID.test(sessionId)) {
    conversation.close()
    return change({ sessionId: undefined, session: undefined })
  }
  show(sessionId, ID.test(agent) ? agent : 'main')
  if (!query.get('session') || !query.get('agent')) address('replaceState') // so that the address can be handed on
}

hub.on('state', (link) => {
  change({
    link,
    closeCode: hub.closeCode,
    wasLive: ui.wasLive || link === 'live',
    draining: link === 'live' ? false : ui.draining,
  })
  if (link === 'live') list.soon()
})
hub.on('welcome', ({ agents }) => change({ agents }))
hub.on('notice', (notice) => notice.type === 'draining' && change({ draining: true }))
addEventListener('popstate', start)
addEventListener('keydown', ({ key }) => key === 'Escape' && ui.drawer && act.drawer(false))
document.documentElement.lang = language === 'zh' ? 'zh-CN' : 'en'
document.body.replaceChildren()
start()
list.refresh()
