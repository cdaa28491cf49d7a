import js from '@eslint/js'
import globals from 'globals'

export default [
  js.configs.recommended,
  {
    linterOptions: { reportUnusedDisableDirectives: 'error' },
    rules: {
      eqeqeq: ['error', 'always', { null: 'ignore' }],
      'no-shadow': 'error',
      'no-unused-vars': ['error', { argsIgnorePattern: '^_' }],
      'no-var': 'error',
      'object-shorthand': 'error',
      'prefer-const': 'error',
    },
  },
  { files: ['hub/**'], languageOptions: { globals: globals.browser } },
  { files: ['hub/client_js/**'], languageOptions: { globals: globals['shared-node-browser'] } },
  { files: ['hub/reference/**'], languageOptions: { sourceType: 'script' } },
  { files: ['tests/**'], languageOptions: { globals: globals.node } },
  { ignores: ['hub/console/vendor/**'] },
]
