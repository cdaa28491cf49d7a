// node openai_chat.js URL MODEL MESSAGE: chat with OpenAI's own client; print the stream, the complete answer, an error.
import OpenAI from 'openai'

const [url, model, message] = process.argv.slice(2)
const client = new OpenAI({ baseURL: url, apiKey: 'any', maxRetries: 0 })
const messages = [{ role: 'user', content: message }]
const pieces = []
for await (const chunk of await client.chat.completions.create({ model, messages, stream: true })) {
  pieces.push(chunk.choices[0].delta.content ?? '')
}
const whole = await client.chat.completions.create({ model, messages })
const unknown = await client.chat.completions.create({ model: 'nobody', messages }).catch((error) => error)
console.log(JSON.stringify({
  pieces,
  whole: whole.choices[0].message.content,
  unknown: [unknown.constructor.name, unknown.status, unknown.code],
}))
