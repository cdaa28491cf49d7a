// The status line: it shows the most urgent of the states that apply.
import { mayWrite } from '../rights.js'
import { isLoaded, openQuestions } from '../selectors.js'
import { t } from '../words.js'

/** Return the kind and the text of the status line. */
export function statusOf(ui) {
  return CASES.map((makeStatus) => makeStatus(ui)).find(Boolean) ?? { kind: 'good', text: t('connected') }
}

const names = (agents) => [...new Set(agents)].join(', ')

const CASES = [
  ({ link, closeCode }) => link === 'closed' && { kind: 'bad', text: t('closed', { code: closeCode ?? '' }) },
  ({ link, wasLive }) => link === 'connecting' && !wasLive && { kind: 'busy', text: t('connecting') },
  ({ link }) => link !== 'live' && { kind: 'bad', text: t('unreachable') },
  ({ draining }) => draining && { kind: 'bad', text: t('draining') },
  ({ session }) => session && !isLoaded(session) && { kind: 'busy', text: t('catchingUp') },
  (ui) => {
    const agents = ui.session && mayWrite(ui) ? openQuestions(ui.session).map(({ question }) => question.agentId) : []
    return agents.length > 0 && { kind: 'wanted', text: t('needsYou', { name: names(agents) }) }
  },
  ({ stopping, session }) => stopping && session?.active.length > 0 && { kind: 'busy', text: t('stopping') },
  ({ session }) => session?.typing && { kind: 'busy', text: t('isTyping', { name: personName(session.typing) }) },
  ({ session }) =>
    session?.active.length > 0 && {
      kind: 'busy',
      text: t('isAnswering', { name: names(session.active.map(({ agentId }) => agentId)) }),
    },
]

/** Return the name of a person; without sign-in all people are called `local`. */
export const personName = ({ name }) => (!name || name === 'local' ? t('someone') : name)
