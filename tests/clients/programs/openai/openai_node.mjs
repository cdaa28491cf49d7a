// OpenAI's own client for JavaScript.
//
// /// script
// dependencies = ["openai@7.59.0", "zod@4.6.7"]
// ///

import OpenAI from 'openai'
import { zodResponseFormat } from 'openai/helpers/zod'
import { z } from 'zod'
import { args, run, url } from './scenario.mjs'

const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'none' })
const messages = [{ role: 'user', content: 'hello there' }]
const more = JSON.parse(args[0] ?? '{}')

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

function weatherTool () {
  const schema = { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] }
  const get_weather = {
    name: 'get_weather', description: 'the weather of a city', parameters: schema, parse: JSON.parse,
    function: ({ city }) => `sunny in ${city}`
  }
  return [{ type: 'function', function: get_weather }]
}

async function tools () {
  return client.chat.completions.runTools({ model: 'scripted', messages, tools: weatherTool() }).finalContent()
}

async function tools_in_stream () {
  const runner = client.chat.completions.stream({ model: 'scripted', messages, tools: weatherTool() })
  const { name, arguments: text } = (await runner.finalChatCompletion()).choices[0].message.tool_calls[0].function
  return [name, JSON.parse(text)]
}

async function structured () {
  const format = zodResponseFormat(z.object({ name: z.string(), age: z.number() }), 'person')
  const answer = await client.chat.completions.parse({ model: 'scripted', messages, response_format: format })
  return answer.choices[0].message.parsed
}

async function with_key () {
  const answers = []
  for (let count = 0; count < 2; count++) {
    const body = { model: 'echo', messages, sessionId: 's1' }
    const answer = await client.chat.completions.create(body, { headers: { 'Idempotency-Key': 'my-key-1' } })
    answers.push(answer.choices[0].message.content)
  }
  return answers
}

async function image () {
  const content = [
    { type: 'text', text: 'what is this?' },
    { type: 'image_url', image_url: { url: 'data:image/png;base64,QUJD' } },
  ]
  const answer = await client.chat.completions.create({ model: 'looker', messages: [{ role: 'user', content }] })
  return answer.choices[0].message.content
}

async function failure () {
  return client.chat.completions.create({ model: 'failing', messages, ...more }).catch(String)
}

async function failure_in_stream () {
  const read = async () => {
    const request = { model: 'failing', messages, stream: true, ...more }
    for await (const chunk of await client.chat.completions.create(request)) {
      if (!chunk) break
    }
  }
  return read().catch(String)
}

run({ whole, stream, tools, tools_in_stream, structured, with_key, image, failure, failure_in_stream })
