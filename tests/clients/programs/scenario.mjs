// What all programs in JavaScript share: PROGRAM URL FUNCTION [ARGUMENT...] prints the result of the function as JSON.

export const [url, name, ...args] = process.argv.slice(2)

export async function run (functions) {
  console.log('\n' + JSON.stringify(await functions[name]()))
  process.exit(0)
}
