// The page: what it knows (ui), what can be done (act), and one drawing of it for each frame.
import { connect } from '/client.js'
import { copy } from './clipboard.js'
import { cut, html, render } from './html.js'
import { Follower } from './scroll.js'
import { another, past } from './past.js'
import { following } from './session.js'
import { ask, talk } from './talk.js'
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
  named: false, // by the address, or by a click
  sessionId: undefined,
  session: undefined, // see session.js
  shown: PAGE,
  following: true,
  editing: undefined,
  past: { sessions: [] },
  find: '',
  drawer: false,
  dialog: undefined,
  doubt: undefined, // what the dialog of that name asks: { count, does }
  notice: undefined, // { text, calm }
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
  try {
    render(html`<${Page} ui=${ui} act=${act} />`, document.body)
    follow()
    document.title = `${act.title()} · Hubbub`
  } finally {
    const took = performance.now() - began
    if (took <= SLOW_MS) rested()
    else setTimeout(rested, took * 2)
  }
}

function rested() {
  due = false
  if (stale) change()
}

function follow() {
  const list = document.getElementById('log')
  if (list && !follower)
    follower = new Follower(list, list.firstElementChild, () => change({ following: follower.following }))
  if (!follower) return
  follower.empty = !ui.session?.items.length
  follower.keep()
}

/** Draw at once, not with the next frame. */
function drawNow(what) {
  Object.assign(ui, what)
  render(html`<${Page} ui=${ui} act=${act} />`, document.body)
}

const fail = (error) => change({ notice: { text: error instanceof Error ? error.message : String(error) } })
const told = (text) => change({ notice: { text, calm: true } })

// --- what can be done -------------------------------------------------------------------------------------------------

const list = past(ui, change)
const conversation = talk(hub, ui, change, {
  changed() {
    list.soon()
    agents()
  },
  removed: () => list.forget(ui.sessionId),
  loaded: settle,
  deleted() {
    show(ui.sessionId, ui.agent)
    told(t('removed'))
  },
})

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
    change({ agent, named: true, drawer: false })
    address('replaceState')
  },

  /** Open a session, a new one where none is named: that one the same agent answers. */
  open(sessionId) {
    show(sessionId ?? newId(), ui.agent, !sessionId)
    address('pushState')
  },

  async earlier() {
    const shown = ui.shown + PAGE
    if (shown > ui.session.items.length && ui.session.more) await conversation.earlier()
    follower.hold(() => drawNow({ shown }))
  },

  /** Print the whole session, not only what is on the page. */
  async print() {
    told(t('reading'))
    while (ui.session?.more) await conversation.earlier()
    drawNow({ notice: undefined })
    print()
  },

  async copy(text) {
    const copied = await copy(text)
    if (!copied) fail(t('notCopied'))
    return copied
  },

  title() {
    const known = ui.past.sessions.find(({ sessionId }) => sessionId === ui.sessionId)?.title ?? list.first(ui.sessionId)
    const first = ui.session?.more ? '' : ui.session?.items.find(({ kind }) => kind === 'user')?.text
    return known || cut(first ?? '', 80) || t('untitled')
  },

  save(item, message) {
    if (message === item.text) return act.edit(undefined)
    sure(following(ui.session, item), () => conversation.act.save(item, message))
  },

  regenerate(run) {
    sure(following(ui.session, run), () => conversation.act.regenerate(run))
  },

  async fork(messageId) {
    const title = another(act.title(), ui.past.sessions)
    const sessionId = await conversation.fork(messageId)
    await list.rename(sessionId, title)
    act.open(sessionId)
  },

  /** Have the hub read a broken agent's file again. */
  async mend(agentId) {
    try {
      await ask(`/api/v1/agents/${encodeURIComponent(agentId)}/reload`, { method: 'POST' })
    } finally {
      await agents() // its file may be gone
    }
  },

  async rename(title) {
    await list.rename(ui.sessionId, title)
    change({ dialog: undefined })
  },

  async remove() {
    await list.remove(ui.sessionId)
    act.open()
    told(t('removed'))
  },
}

/** Do it at once where nothing else is taken back with it, else ask first. */
function sure(count, action) {
  const does = () => action().catch(fail)
  if (!count) does()
  else change({ dialog: 'doubt', doubt: { count, does } })
}

for (const name of ['earlier', 'print', 'rename', 'remove', 'fork', 'reply', 'stop', 'stopAll', 'takeBack', 'mend']) {
  const does = act[name]
  act[name] = (...values) => does(...values).catch(fail)
}

// --- where the page stands --------------------------------------------------------------------------------------------

function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(12))
  return 's-' + [...bytes].map((byte) => (byte % 36).toString(36)).join('')
}

function address(how) {
  const query = new URLSearchParams({ ...(ui.named && { agent: ui.agent }), session: ui.sessionId })
  history[how](null, '', `?${query}`)
}

/** Ask which agents there are now: welcome told of those at the time. */
async function agents() {
  try {
    change({ agents: (await ask('/api/v1/agents')).data })
  } catch {
    // those that are known stay
  }
}

/** *named*: somebody has chosen this agent, so that it stays. */
function show(sessionId, agent, named = true) {
  follower?.toEnd()
  change({
    sessionId,
    agent,
    named,
    shown: PAGE,
    editing: undefined,
    drawer: false,
    dialog: undefined,
    notice: undefined,
    stopping: false,
    said: '',
  })
  if (hub.state !== 'closed') conversation.open(sessionId)
}

/** Whoever answered last in a session answers on, where nobody has chosen another one. */
function settle() {
  if (ui.session.more) list.learn({ sessionId: ui.sessionId }).then(() => change(), fail) // an old session may not be in the list
  if (ui.named) return
  const last = ui.session.items.findLast(({ kind }) => kind === 'run')?.agentId
  const there = ui.agents.some(({ agentId, status }) => agentId === last && status === 'ok')
  change({ agent: there ? last : known(ui.agent), named: true })
  address('replaceState') // so that the address can be handed on
}

/** Return the agent, or the first one that works if the hub does not have it. */
const known = (agent) =>
  ui.agents.some(({ agentId }) => agentId === agent) ? agent : (ui.agents.find(({ status }) => status === 'ok')?.agentId ?? agent)

function start() {
  const query = new URLSearchParams(location.search)
  const [sessionId, agent] = [query.get('session') || newId(), query.get('agent') || 'main']
  if (!ID.test(sessionId)) {
    conversation.close()
    return change({ sessionId: undefined, session: undefined })
  }
  show(sessionId, ID.test(agent) ? agent : 'main', query.has('agent'))
  if (!query.get('session')) address('replaceState')
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
addEventListener('focus', agents)
addEventListener('beforeprint', () => drawNow({ shown: Infinity }))
addEventListener('afterprint', () => change({ shown: PAGE }))
addEventListener('keydown', (event) => {
  if (event.key === 'Escape' && ui.drawer) act.drawer(false)
  if (event.key.toLowerCase() !== 'p' || !(event.ctrlKey || event.metaKey) || event.shiftKey || event.altKey) return
  event.preventDefault()
  act.print()
})
document.documentElement.lang = language === 'zh' ? 'zh-CN' : 'en'
document.body.replaceChildren()
start()
list.refresh()
