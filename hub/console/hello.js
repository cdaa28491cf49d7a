// The plain protocol, as a first script would write it: chat, stream, ping.
const $ = (id) => document.getElementById(id)
const query = new URLSearchParams(location.search)
const session = query.get('session') || 's-' + Math.random().toString(36).slice(2, 10)
const url = location.origin.replace(/^http/, 'ws') + '/api/v1/ws?sessionId=' + encodeURIComponent(session)
const texts = new Map() // messageId -> the text node that grows
let ws, last = null

function state(text) {
  $('state').textContent = text || 'connected, session ' + session
}

function line(who, kind) {
  const title = document.createElement('b')
  title.textContent = who
  const text = document.createElement('span')
  if (kind) text.className = kind
  $('log').append(title, text)
  return text.appendChild(document.createTextNode(''))
}

function connect() {
  ws = new WebSocket(last ? `${url}&afterSeq=${last.seq}&epoch=${last.epoch}` : url)
  ws.onopen = () => state()
  ws.onclose = () => {
    state('connection lost, trying again…')
    setTimeout(connect, 1000 + Math.random() * 1000)
  }
  ws.onmessage = ({ data }) => {
    const log = $('log')
    const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 50 // who has scrolled up is reading
    hear(JSON.parse(data))
    if (atEnd) log.scrollTop = log.scrollHeight
  }
}

function hear(frame) {
  if (frame.type === 'pong') return
  state()
  if (frame.seq) last = frame
  if (frame.code === 'reset') { // what comes now begins anew
    last = null
    texts.clear()
    $('log').replaceChildren()
  } else if (frame.type === 'error') line('error', 'error').data = frame.message
  if (frame.type !== 'stream' && frame.type !== 'message') return
  if (!texts.has(frame.messageId) && !frame.done) texts.set(frame.messageId, line(frame.agentId))
  if (frame.content) texts.get(frame.messageId).data += frame.content
}

$('form').onsubmit = (event) => {
  event.preventDefault()
  const message = $('message').value.trim()
  if (!message || ws.readyState !== WebSocket.OPEN) return
  const agentId = $('agent').value || 'main'
  line('you').data = message
  $('log').scrollTop = $('log').scrollHeight
  state('waiting for ' + agentId + '…')
  ws.send(JSON.stringify({ type: 'chat', agentId, sessionId: session, message }))
  $('message').value = ''
}

setInterval(() => ws.readyState === WebSocket.OPEN && ws.send(JSON.stringify({ type: 'ping' })), 30000)

fetch('/api/v1/agents').then((answer) => answer.json()).then(({ data }) => {
  for (const agent of data.filter((one) => one.status === 'ok')) $('agent').add(new Option(agent.agentId))
  $('agent').value = query.get('agent') || 'main'
})
history.replaceState(null, '', '?session=' + encodeURIComponent(session))
connect()
