// The messages of the session; in an empty session, the choice of an agent.
import { html } from '../html.js'
import { mayAdminister, mayCreate, mayWrite } from '../rights.js'
import { isLoaded, isMine, openQuestions } from '../selectors.js'
import { t } from '../words.js'
import { Guard } from './guard.js'
import { Icon } from './icons.js'
import { Answer, UserMessage } from './message.js'
import { Agent, ReloadAgent } from './sidebar.js'

export function MessageList({ ui, act }) {
  const queuedIds = new Set(ui.session?.queue.map(({ userMessageId }) => userMessageId)) // shown above the composer
  const items = (ui.session?.items ?? []).filter(({ id }) => !queuedIds.has(id))
  const first = Math.max(0, items.length - ui.itemLimit)
  const firstUser = items.findIndex(({ kind }) => kind === 'user')
  const hasMore = first > 0 || ui.session?.more
  const rights = { write: ui.session && mayWrite(ui), fork: mayCreate(ui) }
  const questions = ui.session ? openQuestions(ui.session) : []
  const hasUserBefore = (index) => ui.session.more || (firstUser >= 0 && firstUser < index)
  return html`<div class="reading">
    <div id="log" role="log" aria-live="off" aria-label=${t('conversation')} tabindex="0" onClick=${(event) => copyCode(event, act)}>
      <div class="turns">
        ${ui.session?.more && html`<p class="printed">${t('notPrinted')}</p>`}
        ${hasMore && html`<button type="button" class="quiet early" onClick=${act.earlier}>${t('showEarlier')}</button>`}
        ${!items.length && html`<${Empty} ui=${ui} act=${act} />`}
        ${items.slice(first).map((item, index) => message(item, ui, act, rights, questions, hasUserBefore(first + index)))}
      </div>
    </div>
    ${!ui.isFollowing && html`<button type="button" class="to-end" onClick=${act.scrollToEnd}><${Icon} name="down" />${t('scrollToEnd')}</button>`}
  </div>`
}

const trees = new WeakMap() // item -> its last tree: the renderer skips a tree that is the same object

/**
 * Make the tree of an item. *questions* are the open ones of all items.
 *
 * *hasUserBefore*: a message of a person is before it; an agent may also write without one.
 */
function message(item, ui, act, rights, questions, hasUserBefore) {
  const properties = {
    editing: ui.editing === item.key,
    isMine: isMine(item, ui.me?.id),
    canWrite: rights.write,
    canReply: rights.write && questions.some((part) => item.parts?.includes(part)),
    canFork: rights.fork,
    canRegenerate: rights.write && hasUserBefore,
  }
  const last = trees.get(item)
  if (last && Object.keys(properties).every((name) => last.properties[name] === properties[name])) return last.tree
  const View = item.kind === 'run' ? Answer : UserMessage
  const tree = html`<${Guard} key=${item.key} item=${item}><${View} item=${item} act=${act} ...${properties} /><//>`
  trees.set(item, { properties, tree })
  return tree
}

/** Copy a block of code if its button was clicked. One listener serves all blocks: there may be thousands. */
async function copyCode({ target }, act) {
  const button = target.closest('[data-copy]')
  if (!button) return
  const code = button.closest('.code').querySelector('code')
  if (!(await act.copy(code.textContent.replace(/\n$/, '')))) return getSelection().selectAllChildren(code)
  button.firstChild.data = t('copied')
  setTimeout(() => (button.firstChild.data = t('copy')), 1500)
}

const scrollToChosen = (list) => list?.querySelector('[aria-pressed=true]')?.scrollIntoView({ block: 'nearest' })

function Empty({ ui, act }) {
  if (!ui.session) {
    return html`<div class="empty">
      <h2>${t('badSession')}</h2>
      <button type="button" class="wide-button" onClick=${() => act.open()}>${t('newSession')}</button>
    </div>`
  }
  if (!ui.wasLive || !isLoaded(ui.session)) return html`<div class="empty" aria-hidden="true"></div>`
  if (ui.session.isMissing && !(ui.isNew && mayCreate(ui))) return html`<${NoSession} ui=${ui} />`
  const agent = ui.agents.find(({ agentId }) => agentId === ui.agent)
  const isBroken = agent && agent.status !== 'ok'
  const title = isBroken ? 'isBroken' : ui.agents.length && !agent ? 'unknownAgent' : 'welcome'
  return html`<div class="empty">
    <h2>${t(title, { name: ui.agent })}</h2>
    ${isBroken ? html`<p>${agent.error}</p><p>${t('brokenHint')}</p>${mayAdminister(ui) && html`<${ReloadAgent} agentId=${ui.agent} kind="wide-button" act=${act} />`}` : html`<p>${t(ui.agents.length ? 'welcomeHint' : 'noAgents')}</p>`}
    <ul class="choice" ref=${scrollToChosen}>${ui.agents.map((entry) => html`<${Agent} key=${entry.agentId} agent=${entry} ui=${ui} act=${act} />`)}</ul>
  </div>`
}

/** The hub does not say whether the session exists. */
const NoSession = ({ ui }) =>
  html`<div class="empty">
    <h2>${t(ui.isNew ? 'guestTitle' : 'noSession')}</h2>
    <p>${t(ui.isNew ? 'guestSessions' : mayCreate(ui) ? 'noSessionHint' : 'noSessionGuest')}</p>
  </div>`
