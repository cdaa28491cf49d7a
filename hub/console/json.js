// Indent JSON for people.

// Indentation may add this many characters, plus four times the text: for deep JSON it would fill the memory.
const MAX_EXTRA_CHARS = 20_000

/** Return the JSON indented; return the text unchanged if it is no JSON, or nested too deep. */
export function indentJson(text) {
  try {
    const value = JSON.parse(text)
    return extraChars(text) > MAX_EXTRA_CHARS + text.length * 4 ? text : JSON.stringify(value, null, 2)
  } catch {
    return text // the arguments of a tool call, for one, are incomplete while they come
  }
}

/** Estimate how many characters an indentation of two adds. */
function extraChars(text) {
  let [depth, sum] = [0, 0]
  for (const [mark] of text.replace(/"[^"\\]*(?:\\.[^"\\]*)*"/g, '').matchAll(/[[\]{},]/g)) {
    if (mark === '[' || mark === '{') depth++
    else if (mark !== ',') depth--
    sum += 1 + 2 * depth
  }
  return sum
}
