// Send one message of 20 MiB, and print the close code and the reason that the hub answers with.
// Usage: node large_frame.js URL
import WebSocket from 'ws'

const socket = new WebSocket(process.argv[2], { perMessageDeflate: true })
socket.on('open', () => socket.send('x'.repeat(20 * 1024 * 1024), () => {}))
socket.on('error', (error) => console.error(error.message))
socket.on('close', (code, reason) => console.log(`${code} ${reason}`))
