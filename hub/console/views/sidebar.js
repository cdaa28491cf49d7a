// The list of sessions, and the list of agents with their states.
import { hubAddress } from '../addresses.js'
import { html } from '../html.js'
import { hasNames, mayAdminister, mayCreate } from '../rights.js'
import { formatTime, t } from '../words.js'
import { Icon, IconButton } from './icons.js'

export function Sidebar({ ui, act }) {
  return html`<aside class=${ui.drawer ? 'open' : ''} aria-label=${t('menu')}>
    <div class="brand"><img src=${hubAddress('/favicon.ico')} alt="" width="26" height="26" /><span>Hubbub</span>
      <span class="narrow"><${IconButton} icon="close" id="menu-close" label=${t('close')} onClick=${() => act.drawer(false)} /></span></div>
    ${mayCreate(ui) && html`<button type="button" class="wide-button" onClick=${() => act.open()}><${Icon} name="plus" />${t('newSession')}</button>`}
    <${Sessions} ui=${ui} act=${act} />
    <section class="agents">
      <h2>${t('agents')}</h2>
      <ul>${ui.agents.map((agent) => html`<${Agent} key=${agent.agentId} agent=${agent} ui=${ui} act=${act} />`)}</ul>
      <p class="hint"><a href=${hubAddress('/docs')} target="_blank" rel="noopener">${t('docs')}</a></p>
    </section>
    ${hasNames(ui) && html`<${Account} ui=${ui} act=${act} />`}
  </aside>`
}

const Account = ({ ui: { me }, act }) =>
  html`<section class="account" aria-label=${t('account')}>
    <div><b>${me.name}</b><span>${t(`is_${me.role}`)}</span></div>
    <button type="button" class="quiet" onClick=${act.signOut}>${t('signOut')}</button>
  </section>`

function Sessions({ ui, act }) {
  const { sessions, more, failed, loaded } = ui.list
  const query = ui.find.trim().toLowerCase()
  const matches = sessions.filter(({ title, sessionId }) => `${title ?? ''} ${sessionId}`.toLowerCase().includes(query))
  return html`<nav aria-label=${t('sessions')}>
    <input type="search" class="find" aria-label=${t('find')} placeholder=${t('find')} value=${ui.find}
      onInput=${(event) => act.find(event.target.value)} />
    ${failed && html`<p class="hint">${t('listFailed')} <button type="button" class="quiet" onClick=${act.reloadSessions}>${t('tryAgain')}</button></p>`}
    ${!failed && loaded && !matches.length && html`<p class="hint">${t(!query ? (mayCreate(ui) ? 'noSessions' : 'noInvites') : more ? 'noMatchYet' : 'noMatch', { n: sessions.length })}</p>`}
    <ul>${matches.map((session) => html`<${Row} key=${session.sessionId} session=${session} ui=${ui} act=${act} />`)}</ul>
    ${more && html`<button type="button" class="quiet" onClick=${act.moreSessions}>${t('showMore')}</button>`}
  </nav>`
}

function Row({ session, ui, act }) {
  const { sessionId, title, ts } = session
  const open = (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return // the browser opens a new tab or window
    event.preventDefault()
    act.open(sessionId)
  }
  // The number of a fork is shown even if its title is cut off.
  const [, name, number] = /^(.*?)( \(\d+\))?$/s.exec(title || sessionId)
  const query = new URLSearchParams({ session: sessionId })
  return html`<li><a href=${`?${query}`} aria-current=${sessionId === ui.sessionId ? 'page' : undefined} onClick=${open}>
    <span class="name">${name}</span>${number && html`<span class="number">${number}</span>`}<span class="time">${formatTime(ts)}</span></a></li>`
}

export const ReloadAgent = ({ agentId, kind = 'quiet', act }) =>
  html`<button type="button" class=${kind} onClick=${() => act.reloadAgent(agentId)}>${t('reloadAgent', { name: agentId })}</button>`

/** One agent: its name, its state, and its description, or its error if it is broken. */
export function Agent({ agent, ui, act }) {
  const { agentId, description, status, error } = agent
  const isAnswering = ui.session?.active.some((run) => run.agentId === agentId)
  const state = status === 'ok' ? (isAnswering ? 'answering' : 'ready') : 'broken'
  return html`<li><button type="button" class="agent" disabled=${status !== 'ok'} aria-pressed=${ui.agent === agentId}
      onClick=${() => act.choose(agentId)}>
    <span class="name"><span class=${`dot ${state}`}></span>${agentId}</span><span class="state">${t(state)}</span>
    <span class="more">${status === 'ok' ? description : `${error ?? ''}. ${t('brokenHint')}`}</span>
  </button>${status !== 'ok' && mayAdminister(ui) && html`<${ReloadAgent} agentId=${agentId} act=${act} />`}</li>`
}
