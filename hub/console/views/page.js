// The page: the sidebar, the messages, the status line, and the composer.
import { html } from '../html.js'
import { hasNames, mayShare, mayWrite } from '../rights.js'
import { t } from '../words.js'
import { Composer } from './composer.js'
import { Dialogs } from './dialogs.js'
import { Icon, IconButton } from './icons.js'
import { MessageList } from './message_list.js'
import { Sidebar } from './sidebar.js'
import { personName, statusOf } from './status.js'

export function Page({ ui, act }) {
  return html`<div class="page">
    <${Sidebar} ui=${ui} act=${act} />
    <main inert=${ui.drawer}>
      <${Header} ui=${ui} act=${act} />
      <${MessageList} ui=${ui} act=${act} />
      <${Bottom} ui=${ui} act=${act} />
    </main>
    ${ui.drawer && html`<button type="button" class="veil" aria-label=${t('close')} onClick=${() => act.drawer(false)}></button>`}
    <${Dialogs} ui=${ui} act=${act} />
    <div class="unseen" aria-live="polite">${ui.announcement}</div>
  </div>`
}

const namesHere = (ui) => hasNames(ui) && [...new Set(ui.session.here.map(personName))].sort().join(', ')

function Header({ ui, act }) {
  const count = ui.session?.count ?? 1
  return html`<header>
    <span class="narrow">
      <${IconButton} icon="menu" label=${t('menu')} id="menu" aria-expanded=${ui.drawer} onClick=${() => act.drawer(true)} />
    </span>
    <h1 title=${act.title()}>${act.title()}</h1>
    ${
      ui.session &&
      html`
      <span class=${count > 1 ? 'people' : 'people alone'} title=${namesHere(ui) || t('sharedHere')}>
        <${Icon} name="people" />${count > 1 ? t('people', { n: count }) : t('alone')}
      </span>
      ${
        mayShare(ui) &&
        html`<button type="button" class="quiet" aria-label=${t('share')} onClick=${() => act.dialog('share')}>
        <${Icon} name="share" /><span>${t('share')}</span></button>`
      }
      ${mayWrite(ui) && html`<${IconButton} icon="more" label=${`${t('rename')}, ${t('remove')}`} onClick=${() => act.dialog('manage')} />`}`
    }
  </header>`
}

function Bottom({ ui, act }) {
  const { kind, text } = statusOf(ui)
  return html`<div class="bottom">
    ${ui.notice && html`<div class=${ui.notice.calm ? 'notice calm' : 'notice'} role="alert">
      <span>${ui.notice.text}</span><${IconButton} icon="close" label=${t('dismiss')} onClick=${act.dismiss} />
    </div>`}
    <p class=${`status ${kind}`} role="status"><span class="dot"></span><span>${text}</span>
      ${ui.link === 'closed' && html`<button type="button" class="quiet" onClick=${() => location.reload()}>${t('reload')}</button>`}
    </p>
    ${ui.session && html`<${Composer} key=${ui.visit} ui=${ui} act=${act} />`}
  </div>`
}
