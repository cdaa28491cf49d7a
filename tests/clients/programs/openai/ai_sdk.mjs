// The AI SDK of Vercel, with its provider for endpoints like OpenAI's.
//
// /// script
// dependencies = ["ai@7.0.173", "@ai-sdk/openai-compatible@3.0.92", "zod@4.6.7"]
// ///

import { createOpenAICompatible } from '@ai-sdk/openai-compatible'
import { generateObject, generateText, stepCountIs, streamText, tool } from 'ai'
import { z } from 'zod'
import { args, run, url } from './scenario.mjs'

const more = JSON.parse(args[0] ?? '{}')
const headers = more.sessionId ? { 'X-Session-Id': more.sessionId } : {}
const hub = createOpenAICompatible({
  name: 'hub', baseURL: `${url}/v1`, supportsStructuredOutputs: true, includeUsage: true, headers
})
const prompt = 'hello there'

async function whole () {
  return (await generateText({ model: hub('echo'), prompt })).text
}

async function stream () {
  const pieces = []
  for await (const piece of streamText({ model: hub('echo'), prompt }).textStream) pieces.push(piece)
  return pieces
}

function weatherTools () {
  const get_weather = tool({
    description: 'the weather of a city',
    inputSchema: z.object({ city: z.string() }),
    execute: async ({ city }) => `sunny in ${city}`
  })
  return { model: hub('scripted'), prompt, tools: { get_weather }, stopWhen: stepCountIs(4) }
}

async function tools () {
  return (await generateText(weatherTools())).text
}

async function tools_in_stream () {
  const result = streamText({ ...weatherTools(), stopWhen: stepCountIs(1) })
  await result.consumeStream()
  const [call] = await result.toolCalls
  return [call.toolName, call.input]
}

async function structured () {
  const schema = z.object({ name: z.string(), age: z.number() })
  return (await generateObject({ model: hub('scripted'), prompt, schema })).object
}

async function with_key () {
  const question = { model: hub('echo'), prompt, headers: { 'Idempotency-Key': 'my-key-1', 'X-Session-Id': 's1' } }
  const answers = []
  for (let count = 0; count < 2; count++) {
    answers.push((await generateText(question)).text)
  }
  return answers
}

async function image () {
  const content = [
    { type: 'text', text: 'what is this?' },
    { type: 'image', image: new Uint8Array([65, 66, 67]), mediaType: 'image/png' },
  ]
  return (await generateText({ model: hub('looker'), messages: [{ role: 'user', content }] })).text
}

async function failure () {
  return generateText({ model: hub('failing'), prompt }).catch(String)
}

async function failure_in_stream () {
  const errors = []
  const onError = ({ error }) => { errors.push(String(error?.message ?? error)) }
  await streamText({ model: hub('failing'), prompt, onError }).consumeStream()
  return errors.join()
}

run({ whole, stream, tools, tools_in_stream, structured, with_key, image, failure, failure_in_stream })
