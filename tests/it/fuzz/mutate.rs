//! Random changes to inputs that are good.

/// A generator of random numbers: splitmix64.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is at least 1.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// What an input may not grow beyond.
pub(super) const INPUT_BYTES_MAX: usize = 8_192;

/// Numbers at the ends of what is counted somewhere.
const NUMBERS: [&str; 18] = [
    "0",
    "-0",
    "-1",
    "1e5",
    "1E400",
    "1e-400",
    "0.1",
    "0.000000000000000000000000000001",
    "255",
    "65536",
    "4294967296",
    "9007199254740993",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "79228162514264337593543950336",
    "1714564800000",
    "1714564800000000",
];

/// Texts at which a reader of JSON, of an address or of a capture turns off.
const TEXTS: [&str; 26] = [
    "null", "true", "[]", "{}", "\"\"", "[[", "{\"", "]", "}", "\"", "\\", "\\u0000", "\\ud800", ",", ":",
    "\n", "\r\n", "\0", "\u{feff}", "é", "*", "%00", "&", "=", "+1s", "-",
];

/// The words of these inputs: what a mutation puts into the place of another.
pub(super) fn words(inputs: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut words: Vec<Vec<u8>> = inputs
        .iter()
        .flat_map(|input| input.split(|byte| !(byte.is_ascii_alphanumeric() || b"_.-:@".contains(byte))))
        .filter(|word| (1..=24).contains(&word.len()))
        .map(<[u8]>::to_vec)
        .collect();
    words.sort_unstable();
    words.dedup();
    words
}

/// Changes an input in one to six places. `other` is an input to take a part of.
pub(super) fn mutate(input: &mut Vec<u8>, other: &[u8], words: &[Vec<u8>], random: &mut Random) {
    for _ in 0..=random.below(6) {
        once(input, other, words, random);
    }
    input.truncate(INPUT_BYTES_MAX);
}

fn once(input: &mut Vec<u8>, other: &[u8], words: &[Vec<u8>], random: &mut Random) {
    let len = input.len();
    if len == 0 {
        return input.extend_from_slice(other);
    }
    let at = random.below(len);
    let end = (at + 1 + random.below(32)).min(len);
    match random.below(10) {
        0 => input[at] ^= 1 << random.below(8),
        1 => input[at] = random.next() as u8,
        2 => input.truncate(at),
        3 => drop(input.drain(at..end)),
        4 => {
            let part = input[at..end].to_vec();
            let times = 1 + random.below(4);
            input.splice(at..at, part.repeat(times));
        }
        5 => {
            let from = random.below(other.len().max(1)).min(other.len());
            let to = (from + random.below(64)).min(other.len());
            input.splice(at..end, other[from..to].iter().copied());
        }
        6 => drop(input.splice(at..at, TEXTS[random.below(TEXTS.len())].bytes())),
        7 => replace_run(
            input,
            at,
            |byte| byte.is_ascii_digit() || byte == b'.',
            NUMBERS[random.below(NUMBERS.len())].as_bytes(),
        ),
        _ if words.is_empty() => {}
        _ => replace_run(
            input,
            at,
            |byte| byte.is_ascii_alphanumeric() || byte == b'_',
            &words[random.below(words.len())],
        ),
    }
}

/// Puts a text in the place of the next run of such bytes behind a place.
fn replace_run(input: &mut Vec<u8>, at: usize, belongs: impl Fn(u8) -> bool, text: &[u8]) {
    let Some(from) = (at..input.len()).find(|at| belongs(input[*at])) else { return };
    let to = (from..input.len()).find(|at| !belongs(input[*at])).unwrap_or(input.len());
    input.splice(from..to, text.iter().copied());
}
