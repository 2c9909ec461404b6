/** What two questions differ in, word by word. */

const WORD = /[\p{L}\p{N}\p{M}_]+|\s+|[^\p{L}\p{N}\p{M}_\s]/gu;
const MOST = 1500;

/** Two lists of `{text, differs}`; of questions too long to be compared nothing is marked. */
export function compared(one, other) {
  const a = one.match(WORD) ?? [];
  const b = other.match(WORD) ?? [];
  const wordsA = places(a);
  const wordsB = places(b);
  if (wordsA.length > MOST || wordsB.length > MOST) return [a.map(same), b.map(same)];
  const [keptA, keptB] = common(wordsA.map((at) => folded(a[at])), wordsB.map((at) => folded(b[at])));
  return [marked(a, wordsA, keptA), marked(b, wordsB, keptB)];
}

const folded = (word) => word.normalize("NFC").toLowerCase();
const same = (text) => ({ text, differs: false });

function places(parts) {
  return [...parts.keys()].filter((at) => parts[at].trim());
}

function marked(parts, words, kept) {
  const differing = new Set(words.filter((_, at) => !kept.has(at)));
  return parts.map((text, at) => ({ text, differs: differing.has(at) }));
}

/** The places of a longest common subsequence in both. */
function common(a, b) {
  const width = b.length + 1;
  const longest = new Uint16Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      longest[i * width + j] = a[i] === b[j]
        ? longest[(i + 1) * width + j + 1] + 1
        : Math.max(longest[(i + 1) * width + j], longest[i * width + j + 1]);
    }
  }
  const keptA = new Set();
  const keptB = new Set();
  for (let i = 0, j = 0; i < a.length && j < b.length; ) {
    if (a[i] === b[j]) {
      keptA.add(i++);
      keptB.add(j++);
    } else if (longest[(i + 1) * width + j] >= longest[i * width + j + 1]) i++;
    else j++;
  }
  return [keptA, keptB];
}
