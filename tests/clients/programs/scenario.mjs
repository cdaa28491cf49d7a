// What all programs in JavaScript share: PROGRAM URL FUNCTION [ARGUMENT...] prints the result of the function as JSON.

import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'

export const [url, name, ...args] = process.argv.slice(2)

export async function run (functions) {
  console.log('\n' + JSON.stringify(await functions[name]()))
  process.exit(0)
}

/** Run a command of an installed package, and return what it prints. */
export function execute (command, ...words) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [`node_modules/.bin/${command}`, ...words])
  if (status !== 0) throw new Error(`${command} failed:\n${stdout}${stderr}`)
  return `${stdout}${stderr}`
}

/** Check the types of a module in TypeScript, strictly, and import it. */
export async function importTypeScript (text) {
  writeFileSync('typed.ts', text)
  execute('tsc', '--strict', '--target', 'es2022', '--module', 'nodenext', '--outDir', 'out', 'typed.ts')
  return import('./out/typed.js')
}
