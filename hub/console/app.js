// The page: its state (ui), its actions (act), and at most one rendering for each frame of the browser.
import { connect } from '../client.js'
import { makeAccount } from './account.js'
import { hubAddress } from './addresses.js'
import { makeAgents } from './agents.js'
import { copy } from './clipboard.js'
import { makeConversation } from './conversation.js'
import { Follower } from './follower.js'
import { cut, html, render } from './html.js'
import { isId, newId } from './ids.js'
import { countFollowing } from './selectors.js'
import { forkTitle, sessionList } from './session_list.js'
import { language, t } from './words.js'
import { Page } from './views/page.js'

const PAGE_ITEMS = 60 // items on the page at first, and added for "Show earlier"
const SLOW_RENDER_MS = 8 // after a rendering that takes longer, the page pauses so that it stays responsive

const hub = connect(hubAddress('/api/v1/ws').replace(/^http/, 'ws'))
const ui = {
  link: hub.state,
  me: undefined, // see account.js
  wasLive: false,
  draining: false,
  agents: [],
  agent: 'main',
  isAgentChosen: false, // by the address, or by a click
  sessionId: undefined,
  visit: 0, // how often a session was shown: one that is shown again before a rendering also gets a new composer
  session: undefined, // see session.js
  isNew: false, // this page made the id of the session
  itemLimit: PAGE_ITEMS,
  isFollowing: true,
  editing: undefined,
  list: { sessions: [] }, // see session_list.js
  find: '',
  drawer: false,
  dialog: undefined,
  confirmation: undefined, // for the dialog `confirm`: { count, action }
  notice: undefined, // { text, calm }
  files: [], // for the next message
  stopping: false,
  announcement: '', // for screen readers: the last complete answer
}

// --- rendering --------------------------------------------------------------------------------------------------------

let isScheduled = false // a rendering is scheduled, or the pause after one has not ended
let isStale = false
let follower

/** Change fields of the state, and schedule a rendering. */
function change(fields) {
  Object.assign(ui, fields)
  isStale = true
  if (isScheduled) return
  isScheduled = true
  requestAnimationFrame(renderFrame)
}

function renderFrame() {
  const start = performance.now()
  isStale = false
  try {
    renderPage()
    followEnd()
    document.title = `${act.title()} · Hubbub`
  } finally {
    const ms = performance.now() - start
    if (ms <= SLOW_RENDER_MS) endPause()
    else setTimeout(endPause, ms * 2)
  }
}

function endPause() {
  isScheduled = false
  if (isStale) change()
}

function renderPage() {
  render(html`<${Page} ui=${ui} act=${act} />`, document.body)
}

function followEnd() {
  const log = document.getElementById('log')
  if (log && !follower) {
    follower = new Follower(log, log.firstElementChild, () => change({ isFollowing: follower.isFollowing }))
  }
  if (!follower) return
  follower.isEmpty = !ui.session?.items.length
  follower.follow()
}

/** Change fields of the state, and render at once. */
function changeNow(fields) {
  Object.assign(ui, fields)
  renderPage()
}

const showError = (error) => change({ notice: { text: error instanceof Error ? error.message : String(error) } })
const showNotice = (text) => change({ notice: { text, calm: true } })

// --- actions ----------------------------------------------------------------------------------------------------------

const account = makeAccount(hub, ui, change)
const agents = makeAgents(ui, change)
const list = sessionList(ui, change)
const conversation = makeConversation(hub, ui, change, {
  onChange() {
    list.refreshSoon()
    agents.load()
  },
  onRemoved: () => list.forget(ui.sessionId),
  onLoaded: chooseAgent,
  onDeleted() {
    showSession(ui.sessionId, ui.agent, true, true)
    showNotice(t('sessionDeleted'))
  },
  onRole(role) {
    if (role) showNotice(t(`now_${role}`))
    else change({ dialog: undefined, editing: undefined, notice: { text: t('now_removed') } })
    list.refreshSoon()
    account.load() // the role of the person may have changed, and with it the role in each session
  },
})

const act = {
  ...conversation.act,
  find: (find) => change({ find }),
  moreSessions: () => list.loadMore(),
  reloadSessions: () => list.refresh(),
  drawer(open) {
    change({ drawer: open })
    requestAnimationFrame(() => document.getElementById(open ? 'menu-close' : 'menu')?.focus()) // after the rendering
  },
  dialog: (dialog) => change({ dialog }),
  dismiss: () => change({ notice: undefined }),
  edit: (key) => change({ editing: key }),
  scrollToEnd: () => follower.scrollToEnd(),

  choose(agent) {
    change({ agent, isAgentChosen: true, drawer: false })
    writeAddress('replaceState')
  },

  /** Open a session; without an id, a new session with the same agent. */
  open(sessionId) {
    showSession(sessionId ?? newId(), ui.agent, !sessionId, !sessionId)
    writeAddress('pushState')
  },

  async earlier() {
    const itemLimit = ui.itemLimit + PAGE_ITEMS
    if (itemLimit > ui.session.items.length && ui.session.more) await conversation.loadEarlier()
    follower.holdPosition(() => changeNow({ itemLimit }))
  },

  /** Print the complete session, not only the items on the page. */
  async print() {
    showNotice(t('readingAll'))
    while (ui.session?.more) await conversation.loadEarlier()
    changeNow({ notice: undefined })
    print()
  },

  async copy(text) {
    const isCopied = await copy(text)
    if (!isCopied) showError(t('notCopied'))
    return isCopied
  },

  title() {
    const entry = ui.list.sessions.find(({ sessionId }) => sessionId === ui.sessionId)
    const title = entry?.title ?? list.firstMessage(ui.sessionId)
    const first = ui.session?.more ? '' : ui.session?.items.find(({ kind }) => kind === 'user')?.text
    return title || cut(first ?? '', 80) || t('untitled')
  },

  save(item, message) {
    if (message === item.text) return act.edit(undefined)
    confirmAction(countFollowing(ui.session, item), () => conversation.act.save(item, message))
  },

  regenerate(run) {
    confirmAction(countFollowing(ui.session, run), () => conversation.act.regenerate(run))
  },

  async fork(messageId) {
    const title = forkTitle(act.title(), ui.list.sessions)
    const sessionId = await conversation.fork(messageId)
    await list.rename(sessionId, title)
    act.open(sessionId)
  },

  reloadAgent: (agentId) => agents.reload(agentId),

  async rename(title) {
    await list.rename(ui.sessionId, title)
    change({ dialog: undefined })
    act.enter()
  },

  /** Subscribe to a session that did not exist when the page opened it. */
  enter() {
    if (ui.session.isMissing) conversation.open(ui.sessionId)
  },

  async signOut() {
    if (!(await account.signOut())) showNotice(t('signedInByProxy'))
  },

  async remove() {
    await list.remove(ui.sessionId)
    act.open()
    showNotice(t('sessionDeleted'))
  },
}

/** Run an action; if it also removes other messages, ask the person first. */
function confirmAction(count, action) {
  const run = () => action().catch(showError)
  if (!count) run()
  else change({ dialog: 'confirm', confirmation: { count, action: run } })
}

for (const name of ['earlier', 'print', 'rename', 'remove', 'fork', 'reply', 'stop', 'stopAll', 'takeBack', 'reloadAgent', 'signOut']) {
  const action = act[name]
  act[name] = (...values) => action(...values).catch(showError)
}

// --- the session and the agent ----------------------------------------------------------------------------------------

/** Write the session and the agent into the page's address; *method* is `pushState` or `replaceState`. */
function writeAddress(method) {
  const query = new URLSearchParams({ ...(ui.isAgentChosen && { agent: ui.agent }), session: ui.sessionId })
  history[method]({ isNew: ui.isNew }, '', `?${query}`)
}

/** Show a session; with *isAgentChosen* the agent stays, whoever answered last. *isNew*: nobody else has its id. */
function showSession(sessionId, agent, isAgentChosen, isNew) {
  follower?.scrollToEnd()
  change({
    sessionId,
    visit: ui.visit + 1,
    agent,
    isAgentChosen,
    isNew,
    itemLimit: PAGE_ITEMS,
    editing: undefined,
    drawer: false,
    dialog: undefined,
    notice: undefined,
    files: [],
    stopping: false,
    announcement: '',
  })
  if (hub.state !== 'closed') conversation.open(sessionId)
  renderPage() // before the next key: until the page is drawn, its field belongs to the previous session
}

/** Choose the agent that answered last in this session, unless the person has chosen one. */
function chooseAgent() {
  const { sessionId } = ui
  if (ui.session.more) list.loadFirstMessage({ sessionId }).then(() => change(), showError) // the list may not have it
  if (ui.isAgentChosen) return
  const last = ui.session.items.findLast(({ kind }) => kind === 'run')?.agentId
  const works = ui.agents.some(({ agentId, status }) => agentId === last && status === 'ok')
  change({ agent: works ? last : agents.existing(ui.agent), isAgentChosen: true })
  writeAddress('replaceState') // a person who gets the address has the same agent
}

function readAddress() {
  const query = new URLSearchParams(location.search)
  const [sessionId, agent] = [query.get('session') || newId(), query.get('agent') || 'main']
  if (!isId(sessionId)) {
    conversation.close()
    change({ sessionId: undefined, session: undefined })
    return renderPage() // as in showSession()
  }
  const isNew = !query.get('session') || history.state?.isNew
  showSession(sessionId, isId(agent) ? agent : 'main', query.has('agent'), isNew)
  if (!query.get('session')) writeAddress('replaceState')
}

hub.on('state', (link) => {
  change({
    link,
    closeCode: hub.closeCode,
    wasLive: ui.wasLive || link === 'live',
    draining: link === 'live' ? false : ui.draining,
  })
  if (link === 'live') list.refreshSoon()
})
hub.on('welcome', (welcome) => change({ agents: welcome.agents }))
hub.on('notice', (notice) => notice.type === 'draining' && change({ draining: true }))
addEventListener('popstate', readAddress)
addEventListener('focus', agents.load)
addEventListener('beforeprint', () => changeNow({ itemLimit: Infinity }))
addEventListener('afterprint', () => change({ itemLimit: PAGE_ITEMS }))
addEventListener('keydown', (event) => {
  if (event.key === 'Escape' && ui.drawer) act.drawer(false)
  if (event.key.toLowerCase() !== 'p' || !(event.ctrlKey || event.metaKey) || event.shiftKey || event.altKey) return
  event.preventDefault()
  act.print()
})
document.documentElement.lang = language === 'zh' ? 'zh-CN' : 'en'
document.body.replaceChildren()
readAddress()
list.refresh()
