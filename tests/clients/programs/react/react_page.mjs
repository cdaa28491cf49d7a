// The page of docs/react.md, in one file for a browser.
//
// /// script
// dependencies = ["esbuild@0.28.2", "react@19.3.1", "react-dom@19.3.1"]
// ///

import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { build } from 'esbuild'
import { run, url } from './scenario.mjs'

const MAIN = `
import { StrictMode } from 'react'
import { createRoot } from 'react-dom/client'
import { Chat } from './chat.jsx'

createRoot(document.querySelector('#root')).render(<StrictMode><Chat sessionId="s1" /></StrictMode>)
`

/** Install the client from the hub, bundle the component in the last argument, and return the name of the file. */
async function bundle () {
  execFileSync('npm', ['install', '--no-save', '--no-audit', '--no-fund', '--silent', `${url}/client.tgz`])
  writeFileSync('chat.jsx', process.argv.at(-1).replace('ws://localhost:9527', url.replace(/^http/, 'ws')))
  writeFileSync('main.jsx', MAIN)
  await build({ entryPoints: ['main.jsx'], bundle: true, outfile: 'page.js', jsx: 'automatic' })
  return 'page.js'
}

run({ bundle })
