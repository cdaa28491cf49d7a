// The hook `useHubbub` for React: docs/react.md shows how to use it, react.d.ts has its types.
// The package `hubbub-client` has this module and those it imports as one file, `hubbub-client/react`.

export { useHubbub } from './use_hubbub.js'
