// The dialog to share a session: its address; while sign-in is on, also its members and invite links.
import { Component, html } from '../html.js'
import { isLocal } from '../ids.js'
import { changeMember, createInvite, loadSharing, revokeInvite } from '../members.js'
import { hasNames, mayManage } from '../rights.js'
import { formatDay, t } from '../words.js'
import { Icon } from './icons.js'
import { personName } from './status.js'

/** Return the text about the people who can join by an address with this host, while sign-in is off. */
export const shareText = (host) => (isLocal(host) ? t('shareLocal') : t('shareNetwork', { host }))

export const Share = ({ ui, act }) => (hasNames(ui) ? html`<${Sharing} ui=${ui} act=${act} />` : html`<${Address} ui=${ui} act=${act} />`)

function Address({ ui, act }) {
  const { count } = ui.session
  return html`<div>
    <p>${shareText(location.hostname)}</p>
    <${Link} label=${t('link')} address=${location.href} autofocus act=${act} />
    <p class="people"><${Icon} name="people" />${count > 1 ? t('people', { n: count }) : t('alone')}</p>
  </div>`
}

/** An address that can be copied. */
class Link extends Component {
  field = { current: undefined }

  copy = async () => {
    const field = this.field.current
    field.select()
    this.setState({ copied: await this.props.act.copy(field.value) })
  }

  render({ label, address, autofocus }, { copied }) {
    return html`<div class="row">
      <input ref=${this.field} type="text" readonly aria-label=${label} value=${address} autofocus=${autofocus}
        onFocus=${({ target }) => target.select()} />
      <button type="button" class="main" onClick=${this.copy}>${t(copied ? 'copied' : 'copy')}</button></div>`
  }
}

class Sharing extends Component {
  state = { members: [], invites: [] } // and `invite`, the new one; `error`
  loads = 0

  componentDidMount() {
    this.componentDidUpdate()
  }

  /** Load the members again when somebody comes: an invite may have been used. */
  componentDidUpdate() {
    const { count, role } = this.props.ui.session
    const version = `${count} ${role}`
    if (this.version === version) return
    this.version = version
    this.run(() => {})
  }

  /**
   * Run an action and load what it has changed; show its error in the dialog, which covers the page.
   *
   * Only the last load counts: the responses to two loads may come in any order.
   */
  run = async (action) => {
    const { ui } = this.props
    try {
      const changes = await action()
      const loadId = ++this.loads
      const sharing = ui.session.isMissing ? {} : await loadSharing(ui.sessionId, mayManage(ui))
      this.setState({ error: undefined, ...(loadId === this.loads && sharing), ...changes })
    } catch (error) {
      this.setState({ error: error.message })
    }
  }

  change = (id, role) =>
    this.run(async () => {
      await changeMember(this.props.ui.sessionId, id, role)
    })

  invite = (event) => {
    event.preventDefault()
    const role = event.target.elements.role.value
    this.run(async () => {
      const invite = await createInvite(this.props.ui.sessionId, role)
      this.props.act.enter()
      return { invite }
    })
  }

  revoke = (inviteId) =>
    this.run(async () => {
      await revokeInvite(this.props.ui.sessionId, inviteId)
      return this.state.invite?.inviteId === inviteId ? { invite: undefined } : {}
    })

  render({ ui, act }, { members, invites, invite, error }) {
    const isOwner = mayManage(ui)
    return html`<div>
      ${error && html`<p class="ending failed" role="alert">${error}</p>`}
      <${Members} ui=${ui} members=${members} isOwner=${isOwner} change=${this.change} />
      ${isOwner ? html`<${Invites} invites=${invites} invite=${invite} add=${this.invite} revoke=${this.revoke} act=${act} />` : html`<p>${t('onlyOwners')}</p>`}
      <h3>${t('link')}</h3>
      <p>${t('shareMembers')}</p>
      <${Link} label=${t('link')} address=${location.href} act=${act} />
    </div>`
  }
}

function Members({ ui, members, isOwner, change }) {
  const hereIds = new Set(ui.session.here.map(({ id }) => id))
  return html`<h3>${t('members')}</h3>
    ${!members.length && html`<p>${t('noMembers')}</p>`}
    <ul class="list" aria-label=${t('members')}>${members.map(
      ({ id, name, role }) => html`<li key=${id}>
        <span class="name">${personName({ name })}${id === ui.me.id && html` <small>${t('itsYou')}</small>`}
          ${hereIds.has(id) && html`<span class="dot" role="img" aria-label=${t('sharedHere')} title=${t('sharedHere')}></span>`}</span>
        ${isOwner ? roleField(id, name, role, change) : html`<span class="tag">${t(role)}</span>`}
        ${isOwner && html`<button type="button" class="quiet" aria-label=${t('removeMember', { name: personName({ name }) })} onClick=${() => change(id, null)}>${t('removeOne')}</button>`}
      </li>`,
    )}</ul>`
}

const ROLES = ['owner', 'member', 'viewer']

const roleField = (id, name, role, change) =>
  html`<select aria-label=${t('roleOf', { name: personName({ name }) })} value=${role} onChange=${({ target }) => change(id, target.value)}>
    ${ROLES.map((one) => html`<option key=${one} value=${one} selected=${one === role}>${t(one)}</option>`)}</select>`

function Invites({ invites, invite, add, revoke, act }) {
  return html`<h3>${t('invites')}</h3>
    <form class="row" onSubmit=${add}>
      <select name="role" aria-label=${t('inviteRole')}>
        <option value="member">${t('asMember')}</option><option value="viewer">${t('asViewer')}</option></select>
      <button type="submit" class="main">${t('makeInvite')}</button></form>
    ${
      invite &&
      html`<div class="made"><${Link} key=${invite.inviteId} label=${t('newInvite')} address=${invite.link} act=${act} />
      <p>${t(`invited_${invite.role}`, { date: formatDay(invite.expires) })}</p></div>`
    }
    ${invites.length > 0 && html`<ul class="list" aria-label=${t('invites')}>${invites.map((one) => inviteRow(one, revoke))}</ul>`}`
}

const inviteRow = ({ inviteId, role, expires }, revoke) =>
  html`<li key=${inviteId}><span class="name">${t(role === 'viewer' ? 'asViewer' : 'asMember')} <small>${t('validUntil', { date: formatDay(expires) })}</small></span>
    <button type="button" class="quiet" onClick=${() => revoke(inviteId)}>${t('revoke')}</button></li>`
