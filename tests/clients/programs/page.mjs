// Shared by the programs that are pages in a browser: bundles a component with the hub's client and its styles.

import { execFileSync } from 'node:child_process'
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { build } from 'esbuild'
import { args, url } from './scenario.mjs'

const MAIN = `
import { StrictMode } from 'react'
import { createRoot } from 'react-dom/client'
import { Chat } from './chat.jsx'

createRoot(document.querySelector('#root')).render(<StrictMode><Chat sessionId="s1" /></StrictMode>)
`

/** Unpack the hub's package. npm would compare all packages of the page, which takes up to a minute. */
async function install () {
  const folder = 'node_modules/hubbub-client'
  rmSync(folder, { recursive: true, force: true })
  mkdirSync(folder, { recursive: true })
  const response = await fetch(`${url}/client.tgz`)
  execFileSync('tar', ['xz', '--strip-components=1', '-C', folder], { input: Buffer.from(await response.arrayBuffer()) })
}

/** Bundle the component `Chat` in the last argument with the hub's client, and return the names of the files. */
export async function bundle () {
  await install()
  writeFileSync('chat.jsx', args.at(-1).replace('//localhost:9527', url.replace(/^http:/, '')))
  writeFileSync('main.jsx', MAIN)
  const fonts = Object.fromEntries(['.woff2', '.woff', '.ttf'].map((suffix) => [suffix, 'dataurl']))
  const result = await build({
    entryPoints: ['main.jsx'],
    outfile: 'page.js',
    bundle: true,
    metafile: true,
    jsx: 'automatic',
    define: { 'process.env.NODE_ENV': '"development"' },
    loader: fonts,
  })
  return Object.keys(result.metafile.outputs)
}
