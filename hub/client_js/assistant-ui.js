// The hook `useHubbubRuntime` for assistant-ui: docs/assistant-ui.md shows how to use it, assistant-ui.d.ts has its types.
// The package `hubbub-client` has this module and those it imports as one file, `hubbub-client/assistant-ui`.

export { useHubbubRuntime } from './use_hubbub_runtime.js'
