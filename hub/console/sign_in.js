// The page /sign-in. The token of a link is after `#` in its address: it reaches the hub only when a person uses it.
import { hubAddress } from './addresses.js'
import { Component, html, render } from './html.js'
import { fetchJson, sendJson } from './http.js'
import { isLocal } from './ids.js'
import { language, t } from './words.js'

const INVITE = 'hs_' // the token of an invite to a session begins with it; that of a person's one-time link with hi_

/** Return the token in the address, and remove it from there: a browser keeps addresses in its history. */
function takeToken() {
  const token = location.hash.slice(1)
  if (token) history.replaceState(null, '', location.pathname)
  return token
}

/** Return true if other people in the network can read what this page sends. */
const isReadable = () => location.protocol === 'http:' && !isLocal(location.hostname)

class SignIn extends Component {
  state = { error: undefined, isBusy: false }

  send = async (event) => {
    event.preventDefault()
    const { token } = this.props
    const name = event.target.elements.name?.value.trim()
    this.setState({ isBusy: true, error: undefined })
    try {
      const { sessionId } = await sendJson('POST', '/api/v1/sign-in', { token, name })
      location.replace(hubAddress(sessionId ? `/?${new URLSearchParams({ session: sessionId })}` : '/'))
    } catch (error) {
      this.setState({ isBusy: false, error })
    }
  }

  render({ token, me }, { error, isBusy }) {
    const isUseless = !token || me?.isSignInOn === false || error?.code === 'bad_link'
    const title = me?.isSignInOn === false ? 'noSignIn' : token.startsWith(INVITE) && !isUseless ? 'joinTitle' : 'signIn'
    return html`<main class="sign-in">
      <div class="brand"><img src=${hubAddress('/favicon.ico')} alt="" width="26" height="26" /><span>Hubbub</span></div>
      <h1>${t(title)}</h1>
      ${error && html`<p class="ending failed" role="alert">${errorText(error, token)}</p>`}
      ${!isUseless ? form(token, me, isBusy, this.send) : !me && help()}
      ${me && html`<p>${me.isSignInOn && t('signedInAs', { name: me.name })} <a href=${hubAddress('/')}>${t('openConsole')}</a></p>`}
      ${isReadable() && html`<p class="warning">${t('readable', { host: location.host })}</p>`}
    </main>`
  }
}

function errorText({ code, message }, token) {
  if (code === 'bad_link') return t('badLink')
  return code === 'unauthenticated' && token.startsWith(INVITE) ? t('noGuests') : message
}

function form(token, me, isBusy, send) {
  const isInvite = token.startsWith(INVITE)
  return html`<form onSubmit=${send}>
    <p>${t(isInvite ? 'joinHint' : 'linkHint')}</p>
    ${isInvite && !me && html`<label class="field"><span>${t('yourName')}</span>
      <input type="text" name="name" maxlength="100" autocomplete="name" required autofocus /><small>${t('guestHint')}</small></label>`}
    <button type="submit" class="main" disabled=${isBusy}>${t(isInvite ? 'join' : 'signIn')}</button>
  </form>`
}

const help = () =>
  html`<p>${t('askAdmin')}</p><pre tabindex="0">${`hubbub invite ${t('nameHere')}`}</pre><p>${t('askMember')}</p><p>${t('askProxy')}</p>`

/** Return the principal of this browser, undefined if it has not signed in. */
const findMe = () => fetchJson('/api/v1/me').catch(() => undefined)

async function show() {
  const token = takeToken()
  const me = await findMe()
  render(html`<${SignIn} key=${token} token=${token} me=${me} />`, document.body)
}

document.documentElement.lang = language === 'zh' ? 'zh-CN' : 'en'
document.body.replaceChildren()
document.title = `${t('signIn')} · Hubbub`
addEventListener('hashchange', () => location.hash && show()) // another link, in the same tab
show()
