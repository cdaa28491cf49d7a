// The page of docs/react.md.
//
// /// script
// dependencies = ["esbuild@0.28.2", "react@19.3.1", "react-dom@19.3.1"]
// ///

import * as page from './page.mjs'
import { run } from './scenario.mjs'

async function bundle () {
  return await page.bundle()
}

run({ bundle })
