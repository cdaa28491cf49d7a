// The AI SDK of Vercel, with its provider for endpoints like OpenAI's.
//
// /// script
// dependencies = ["ai@7.0.173", "@ai-sdk/openai-compatible@3.0.92", "zod@4.6.7"]
// ///

import { createOpenAICompatible } from '@ai-sdk/openai-compatible'
import { generateText, streamText } from 'ai'
import { run, url } from './scenario.mjs'

const hub = createOpenAICompatible({ name: 'hub', baseURL: `${url}/v1` })
const prompt = 'hello there'

async function whole () {
  return (await generateText({ model: hub('echo'), prompt })).text
}

async function stream () {
  const pieces = []
  for await (const piece of streamText({ model: hub('echo'), prompt }).textStream) pieces.push(piece)
  return pieces
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

run({ whole, stream, failure, failure_in_stream })
