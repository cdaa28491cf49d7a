// assistant-ui with its own runtime for AG-UI.
//
// /// script
// dependencies = ["@assistant-ui/react@0.15.22", "@assistant-ui/react-ag-ui@0.0.57", "@ag-ui/client@1.0.0", "rxjs@7.8.1", "react@19.3.1", "react-dom@19.3.1", "esbuild@0.28.2"]
// ///

import * as page from './page.mjs'
import { run } from './scenario.mjs'

async function bundle () {
  return await page.bundle()
}

run({ bundle })
