// The parser of AsyncAPI's tools, which also checks a document.
//
// /// script
// dependencies = ["@asyncapi/parser@3.6.6"]
// ///

import { DiagnosticSeverity, Parser } from '@asyncapi/parser'
import { run, url } from './scenario.mjs'

async function check () {
  const response = await fetch(`${url}/asyncapi.json`)
  const { document, diagnostics } = await new Parser().parse(await response.text())
  const problems = diagnostics.filter(({ severity }) => severity <= DiagnosticSeverity.Warning)
  return { problems, messages: document.allMessages().length }
}

run({ check })
