// The small line: what is happening now, the most urgent first.
import { isWhole, questions } from '../session.js'
import { t } from '../words.js'

export function happening(ui) {
  return CASES.map((say) => say(ui)).find(Boolean) ?? { kind: 'good', text: t('connected') }
}

const names = (agents) => [...new Set(agents)].join(', ')

const CASES = [
  ({ link, closeCode }) => link === 'closed' && { kind: 'bad', text: t('closed', { code: closeCode ?? '' }) },
  ({ link, wasLive }) => link === 'connecting' && !wasLive && { kind: 'busy', text: t('connecting') },
  ({ link }) => link !== 'live' && { kind: 'bad', text: t('unreachable') },
  ({ draining }) => draining && { kind: 'bad', text: t('draining') },
  ({ session }) => session && !isWhole(session) && { kind: 'busy', text: t('catchingUp') },
  ({ session }) => {
    const asking = session ? questions(session).map(({ ask }) => ask.agentId) : []
    return asking.length > 0 && { kind: 'wanted', text: t('needsYou', { name: names(asking) }) }
  },
  ({ stopping, session }) => stopping && session?.active.length > 0 && { kind: 'busy', text: t('stopping') },
  ({ session }) => session?.typing && { kind: 'busy', text: t('isTyping', { name: person(session.typing) }) },
  ({ session }) =>
    session?.active.length > 0 && {
      kind: 'busy',
      text: t('isAnswering', { name: names(session.active.map(({ agentId }) => agentId)) }),
    },
]

/** Whoever has no name of their own. */
export const person = ({ name }) => (name === 'local' ? t('someone') : name)
