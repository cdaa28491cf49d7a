// The plain protocol, as a first script would write it: chat, stream, ping.
const $ = (id) => document.getElementById(id)
const query = new URLSearchParams(location.search)
const session = query.get('session') || 's-' + crypto.randomUUID().slice(0, 8)
const url = location.origin.replace(/^http/, 'ws') + '/api/v1/ws?sessionId=' + encodeURIComponent(session)
const texts = new Map() // messageId -> the text node that grows
let ws, last = null

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
  ws.onopen = () => { $('state').textContent = 'connected, session ' + session }
  ws.onclose = () => {
    $('state').textContent = 'connection lost, trying again…'
    setTimeout(connect, 1000 + Math.random() * 1000)
  }
  ws.onmessage = ({ data }) => {
    const frame = JSON.parse(data)
    if (frame.seq) last = frame
    if (frame.type === 'error') line('error', 'error').data = frame.message
    if (frame.type !== 'stream' && frame.type !== 'message') return
    if (!texts.has(frame.messageId) && !frame.done) texts.set(frame.messageId, line(frame.agentId))
    if (frame.content) texts.get(frame.messageId).data += frame.content
  }
}

$('form').onsubmit = (event) => {
  event.preventDefault()
  const message = $('message').value.trim()
  if (!message || ws.readyState !== WebSocket.OPEN) return
  line('you').data = message
  ws.send(JSON.stringify({ type: 'chat', agentId: $('agent').value || 'main', sessionId: session, message }))
  $('message').value = ''
}

setInterval(() => ws.readyState === WebSocket.OPEN && ws.send(JSON.stringify({ type: 'ping' })), 30000)

fetch('/api/v1/agents').then((answer) => answer.json()).then(({ data }) => {
  for (const agent of data.filter((one) => one.status === 'ok')) $('agent').add(new Option(agent.agentId))
  $('agent').value = query.get('agent') || 'main'
})
history.replaceState(null, '', '?session=' + encodeURIComponent(session))
connect()
