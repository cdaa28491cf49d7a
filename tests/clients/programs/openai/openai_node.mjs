// OpenAI's own client for JavaScript.
//
// /// script
// dependencies = ["openai@7.59.0"]
// ///

import OpenAI from 'openai'
import { run, url } from './scenario.mjs'

const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'none' })
const messages = [{ role: 'user', content: 'hello there' }]

async function whole () {
  return (await client.chat.completions.create({ model: 'echo', messages })).choices[0].message.content
}

async function stream () {
  const pieces = []
  for await (const chunk of await client.chat.completions.create({ model: 'echo', messages, stream: true })) {
    if (chunk.choices[0].delta.content) pieces.push(chunk.choices[0].delta.content)
  }
  return pieces
}

async function failure () {
  return client.chat.completions.create({ model: 'failing', messages }).catch(String)
}

async function failure_in_stream () {
  const read = async () => {
    for await (const chunk of await client.chat.completions.create({ model: 'failing', messages, stream: true })) {
      if (!chunk) break
    }
  }
  return read().catch(String)
}

run({ whole, stream, failure, failure_in_stream })
