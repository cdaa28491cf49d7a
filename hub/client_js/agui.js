// The agent `HubbubAgent` for clients of AG-UI: docs/api.md shows how to use it, agui.d.ts has its types.
// The package `hubbub-client` has this module and those it imports as one file, `hubbub-client/agui`.

export { HubbubAgent } from './hubbub_agent.js'
