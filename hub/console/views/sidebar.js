// Past sessions, and the agents with their state.
import { html } from '../html.js'
import { t, when } from '../words.js'
import { Icon, IconButton } from './icons.js'

export function Sidebar({ ui, act }) {
  return html`<aside class=${ui.drawer ? 'open' : ''} aria-label=${t('menu')}>
    <div class="brand"><img src="/favicon.ico" alt="" width="26" height="26" /><span>Hubbub</span>
      <span class="narrow"><${IconButton} icon="close" id="menu-close" label=${t('close')} onClick=${() => act.drawer(false)} /></span></div>
    <button type="button" class="wide-button" onClick=${() => act.open()}><${Icon} name="plus" />${t('newSession')}</button>
    <${Sessions} ui=${ui} act=${act} />
    <section class="agents">
      <h2>${t('agents')}</h2>
      <ul>${ui.agents.map((agent) => html`<${Agent} key=${agent.agentId} agent=${agent} ui=${ui} act=${act} />`)}</ul>
      <p class="hint"><a href="/docs" target="_blank" rel="noopener">${t('docs')}</a></p>
    </section>
  </aside>`
}

function Sessions({ ui, act }) {
  const { sessions, more, failed, loaded } = ui.past
  const wanted = ui.find.trim().toLowerCase()
  const found = sessions.filter(({ title, sessionId }) => `${title ?? ''} ${sessionId}`.toLowerCase().includes(wanted))
  return html`<nav aria-label=${t('sessions')}>
    <input type="search" class="find" aria-label=${t('find')} placeholder=${t('find')} value=${ui.find}
      onInput=${(event) => act.find(event.target.value)} />
    ${failed && html`<p class="hint">${t('listFailed')} <button type="button" class="quiet" onClick=${act.againSessions}>${t('again')}</button></p>`}
    ${!failed && loaded && !found.length && html`<p class="hint">${t(!wanted ? 'noSessions' : more ? 'noneOfThese' : 'noMatch', { n: sessions.length })}</p>`}
    <ul>${found.map((one) => html`<${Row} key=${one.sessionId} one=${one} ui=${ui} act=${act} />`)}</ul>
    ${more && html`<button type="button" class="quiet" onClick=${act.moreSessions}>${t('showMore')}</button>`}
  </nav>`
}

function Row({ one, ui, act }) {
  const open = (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return // in a tab or window of its own
    event.preventDefault()
    act.open(one.sessionId)
  }
  // The number of a fork is seen also where its name is cut off.
  const [, name, number] = /^(.*?)( \(\d+\))?$/s.exec(one.title || one.sessionId)
  const query = new URLSearchParams({ session: one.sessionId })
  return html`<li><a href=${`?${query}`} aria-current=${one.sessionId === ui.sessionId ? 'page' : undefined} onClick=${open}>
    <span class="name">${name}</span>${number && html`<span class="number">${number}</span>`}<span class="time">${when(one.ts)}</span></a></li>`
}

export const Mend = ({ agentId, kind = 'quiet', act }) =>
  html`<button type="button" class=${kind} onClick=${() => act.mend(agentId)}>${t('mend', { name: agentId })}</button>`

/** One agent: its name, its state, and what it is for or why it is broken. */
export function Agent({ agent, ui, act }) {
  const { agentId, description, status, error } = agent
  const answers = ui.session?.active.some((run) => run.agentId === agentId)
  const state = status === 'ok' ? (answers ? 'answering' : 'ready') : 'broken'
  return html`<li><button type="button" class="agent" disabled=${status !== 'ok'} aria-pressed=${ui.agent === agentId}
      onClick=${() => act.choose(agentId)}>
    <span class="name"><span class=${`dot ${state}`}></span>${agentId}</span><span class="state">${t(state)}</span>
    <span class="more">${status === 'ok' ? description : `${error ?? ''}. ${t('brokenMore')}`}</span>
  </button>${status !== 'ok' && html`<${Mend} agentId=${agentId} act=${act} />`}</li>`
}
