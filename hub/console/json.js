// Indent JSON for people.

const ROOM = 20_000 // characters that line breaks and indentation may add, plus four times the text: deep JSON would fill the memory

export function pretty(text) {
  try {
    const value = JSON.parse(text)
    return added(text) > ROOM + text.length * 4 ? text : JSON.stringify(value, null, 2)
  } catch {
    return text // not JSON, or not yet whole
  }
}

/** Return about how many characters an indentation of two adds. */
function added(text) {
  let [depth, sum] = [0, 0]
  for (const [mark] of text.replace(/"[^"\\]*(?:\\.[^"\\]*)*"/g, '').matchAll(/[[\]{},]/g)) {
    if (mark === '[' || mark === '{') depth++
    else if (mark !== ',') depth--
    sum += 1 + 2 * depth
  }
  return sum
}
