// What the person may do here. The hub decides: the page only does not offer what the hub would refuse.
//
// While sign-in is off, everyone may do everything; the session has no `role` then.

const CREATORS = new Set(['admin', 'member'])

/** Return true if messages have senders with names. */
export const hasNames = ({ me }) => me?.isSignInOn === true

export const mayCreate = ({ me }) => !hasNames({ me }) || CREATORS.has(me.role)

export const mayAdminister = ({ me }) => !hasNames({ me }) || me.role === 'admin'

export function mayWrite(ui) {
  const { role, isMissing, isRemoved } = ui.session
  return isMissing ? mayCreate(ui) : !isRemoved && role !== 'viewer'
}

export function mayManage(ui) {
  const { role, isMissing, isRemoved } = ui.session
  return isMissing ? mayCreate(ui) : !isRemoved && (role === undefined || role === 'owner')
}

export const mayShare = (ui) => !ui.session.isRemoved && (!ui.session.isMissing || mayCreate(ui))

/** Return the key of the text that says why the person cannot write, undefined if they can. */
export function lockReason(ui) {
  if (!ui.session || mayWrite(ui)) return undefined
  if (ui.session.isRemoved) return 'lockedRemoved'
  if (ui.me?.role === 'observer') return 'lockedObserver'
  return ui.session.isMissing ? 'lockedGuest' : 'lockedViewer'
}
