// What was said, or where nothing was yet, what to do.
import { html } from '../html.js'
import { isWhole } from '../session.js'
import { t } from '../words.js'
import { Answer, Asked } from './turn.js'
import { Guard } from './guard.js'
import { Icon } from './icons.js'
import { Agent, Mend } from './sidebar.js'

export function Conversation({ ui, act }) {
  const waiting = new Set(ui.session?.queue.map(({ userMessageId }) => userMessageId)) // these are shown above the composer
  const items = (ui.session?.items ?? []).filter(({ id }) => !waiting.has(id))
  const first = Math.max(0, items.length - ui.shown)
  const asked = items.findIndex(({ kind }) => kind === 'user')
  const early = first > 0 || ui.session?.more
  return html`<div class="reading">
    <div id="log" role="log" aria-live="off" aria-label=${t('conversation')} tabindex="0" onClick=${(event) => copied(event, act)}>
      <div class="turns">
        ${ui.session?.more && html`<p class="printed">${t('notAll')}</p>`}
        ${early && html`<button type="button" class="quiet early" onClick=${act.earlier}>${t('showEarlier')}</button>`}
        ${!items.length && html`<${Empty} ui=${ui} act=${act} />`}
        ${items.slice(first).map((item, at) => turn(item, ui, act, ui.session.more || (asked >= 0 && asked < first + at)))}
      </div>
    </div>
    ${!ui.following && html`<button type="button" class="to-end" onClick=${act.toEnd}><${Icon} name="down" />${t('toEnd')}</button>`}
  </div>`
}

const drawn = new WeakMap() // item -> what was made of it; the same is not compared again

/** *again*: it answers something, so that it can be answered again; a broadcast does not. */
function turn(item, ui, act, again) {
  const editing = ui.editing === item.key
  const known = drawn.get(item)
  if (known?.editing === editing && known.again === again) return known.made
  const made = html`<${Guard} key=${item.key} item=${item}>
    <${item.kind === 'run' ? Answer : Asked} item=${item} editing=${editing} again=${again} act=${act} /><//>`
  drawn.set(item, { editing, again, made })
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

const seen = (list) => list?.querySelector('[aria-pressed=true]')?.scrollIntoView({ block: 'nearest' })

function Empty({ ui, act }) {
  if (!ui.session) {
    return html`<div class="empty">
      <h2>${t('badSession')}</h2>
      <button type="button" class="wide-button" onClick=${() => act.open()}>${t('newSession')}</button>
    </div>`
  }
  if (!ui.wasLive || !isWhole(ui.session)) return html`<div class="empty" aria-hidden="true"></div>`
  const chosen = ui.agents.find(({ agentId }) => agentId === ui.agent)
  const broken = chosen && chosen.status !== 'ok'
  const title = broken ? 'isBroken' : ui.agents.length && !chosen ? 'unknownAgent' : 'welcome'
  return html`<div class="empty">
    <h2>${t(title, { name: ui.agent })}</h2>
    ${broken ? html`<p>${chosen.error}</p><p>${t('brokenMore')}</p><${Mend} agentId=${ui.agent} kind="wide-button" act=${act} />` : html`<p>${t(ui.agents.length ? 'welcomeMore' : 'noAgents')}</p>`}
    <ul class="choice" ref=${seen}>${ui.agents.map((agent) => html`<${Agent} key=${agent.agentId} agent=${agent} ui=${ui} act=${act} />`)}</ul>
  </div>`
}
