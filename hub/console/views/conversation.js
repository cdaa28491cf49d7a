// What was said, or where nothing was yet, what to do.
import { html } from '../html.js'
import { t } from '../words.js'
import { Answer, Asked } from './turn.js'
import { Icon } from './icons.js'
import { Agent } from './sidebar.js'

export function Conversation({ ui, act }) {
  const items = ui.session?.items ?? []
  const first = Math.max(0, items.length - ui.shown)
  const early = first > 0 || (ui.session?.more && items.length > 0)
  return html`<div class="reading">
    <div id="log" role="log" aria-live="off" aria-label=${t('conversation')} tabindex="0" onClick=${(event) => copied(event, act)}>
      <div class="turns">
        ${early && html`<button type="button" class="quiet early" onClick=${act.earlier}>${t('showEarlier')}</button>`}
        ${!items.length && html`<${Empty} ui=${ui} act=${act} />`}
        ${items.slice(first).map((item) => turn(item, ui, act))}
      </div>
    </div>
    ${!ui.following && html`<button type="button" class="to-end" onClick=${act.toEnd}><${Icon} name="down" />${t('toEnd')}</button>`}
  </div>`
}

const drawn = new WeakMap() // item -> what was made of it; the same is not compared again

function turn(item, ui, act) {
  const editing = ui.editing === item.key
  const known = drawn.get(item)
  if (known?.editing === editing) return known.made
  const made = html`<${item.kind === 'run' ? Answer : Asked} key=${item.key} item=${item} editing=${editing} act=${act} />`
  drawn.set(item, { editing, made })
  return made
}

/** The copy button of a block of code; there may be thousands, so none has a listener of its own. */
async function copied({ target }, act) {
  const button = target.closest('[data-copy]')
  if (!button) return
  const code = button.closest('.code').querySelector('code')
  if (!(await act.copy(code.textContent.replace(/\n$/, '')))) return getSelection().selectAllChildren(code)
  button.firstChild.data = t('copied')
  setTimeout(() => (button.firstChild.data = t('copy')), 1500)
}

function Empty({ ui, act }) {
  if (!ui.session) {
    return html`<div class="empty">
      <h2>${t('badSession')}</h2>
      <button type="button" class="wide-button" onClick=${() => act.open()}>${t('newSession')}</button>
    </div>`
  }
  if (!ui.wasLive || !(ui.session.seq >= ui.session.head)) return html`<div class="empty" aria-hidden="true"></div>`
  const unknown = ui.agents.length > 0 && !ui.agents.some(({ agentId }) => agentId === ui.agent)
  return html`<div class="empty">
    <h2>${unknown ? t('unknownAgent', { name: ui.agent }) : t('welcome')}</h2>
    <p>${t(ui.agents.length ? 'welcomeMore' : 'noAgents')}</p>
    <ul class="choice">${ui.agents.map((agent) => html`<${Agent} key=${agent.agentId} agent=${agent} ui=${ui} act=${act} />`)}</ul>
  </div>`
}
