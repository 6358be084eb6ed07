//! Campaigns of random inputs, for tests: from samples and words, by mutation, within a time.
//!
//! Without more they are short, and always the same. `tests/fuzz` runs them long, with a new seed;
//! `WARDENT_FUZZ_SECONDS` and `WARDENT_FUZZ_SEED` are what it sets. An input that fails is made
//! smaller and shown, to be written down as a test beside its room.

use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hash, Hasher},
    panic::{self, AssertUnwindSafe},
};

use super::clock::Clock;

/// Seconds of one campaign where nobody asked for more.
const SECONDS: u64 = 1;
/// Inputs of one campaign at least, however slow the machine.
const INPUTS_MIN: u64 = 500;
/// Inputs that were of use, kept to be changed further.
const KEPT_MAX: usize = 512;
const INPUT_BYTES_MAX: usize = 8 * 1024;

/// What a property says of an input: how it was understood, or what is wrong.
///
/// Inputs whose `Ok` differs from all before are kept as samples, so it should tell cases apart.
/// `Ok(0)` is an input that was refused.
pub(crate) type Outcome = Result<u64, String>;

/// Numbers from a seed (SplitMix64).
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// Numbers that belong to `input`, so that a property is a function of its input alone.
    pub(crate) fn of(input: &[u8]) -> Self {
        Self(hash(&input))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not zero.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }
}

/// A number that tells values apart.
pub(crate) fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish().max(1)
}

fn of_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Whether campaigns are all that this process does, as `tests/fuzz` runs them.
pub(crate) fn is_alone() -> bool {
    of_environment("WARDENT_FUZZ_SECONDS").is_some()
}

/// Tries `property` on inputs made of `samples` and `words`.
///
/// # Panics
/// When an input fails, or fewer than one in fifty are accepted: then the campaign tries nothing.
#[expect(clippy::print_stdout, reason = "a test tells how much it tried")]
pub(crate) fn campaign(
    name: &str,
    samples: &[&[u8]],
    words: &[&[u8]],
    property: impl Fn(&[u8]) -> Outcome,
) {
    let seconds = of_environment("WARDENT_FUZZ_SECONDS").unwrap_or(SECONDS);
    let seed = of_environment("WARDENT_FUZZ_SEED").unwrap_or(1);
    let mut dice = Dice::seeded(seed);
    let mut kept: Vec<Vec<u8>> = samples.iter().map(|sample| sample.to_vec()).collect();
    let mut seen = HashSet::new();
    let (mut tried, mut accepted) = (0_u64, 0_u64);
    let clock = Clock::system();
    let until = clock.monotonic_ns() + seconds * 1_000_000_000;
    while tried < INPUTS_MIN || clock.monotonic_ns() < until {
        // The samples themselves come first.
        let input = match samples.get(usize::try_from(tried).unwrap()) {
            Some(sample) => sample.to_vec(),
            None => mutated(&kept, words, &mut dice),
        };
        tried += 1;
        match outcome(&property, &input) {
            Ok(0) => {}
            Ok(class) => {
                accepted += 1;
                if seen.insert(class) && seen.len() > samples.len() {
                    if kept.len() < KEPT_MAX {
                        kept.push(input);
                    } else {
                        let place = samples.len() + dice.below(KEPT_MAX - samples.len());
                        kept[place] = input;
                    }
                }
            }
            Err(wrong) => {
                let (input, wrong) = smaller(&property, input, wrong);
                let shown = input.escape_ascii();
                panic!("{name}, seed {seed}, input {tried}: {wrong}\n  b\"{shown}\"");
            }
        }
    }
    println!(
        "{name}: {tried} inputs, {accepted} accepted, {} kept",
        kept.len()
    );
    assert!(
        accepted >= tried / 50,
        "{name}: only {accepted} of {tried} inputs were accepted"
    );
}

fn outcome(property: &impl Fn(&[u8]) -> Outcome, input: &[u8]) -> Outcome {
    panic::catch_unwind(AssertUnwindSafe(|| property(input)))
        .unwrap_or_else(|_| Err("a panic".to_owned()))
}

fn mutated(kept: &[Vec<u8>], words: &[&[u8]], dice: &mut Dice) -> Vec<u8> {
    let mut input = kept[dice.below(kept.len())].clone();
    if dice.below(4) == 0 {
        let other = &kept[dice.below(kept.len())];
        input.truncate(dice.below(input.len() + 1));
        input.extend_from_slice(&other[dice.below(other.len() + 1)..]);
    }
    for _ in 0..dice.below(5) {
        mutate(&mut input, words, dice);
    }
    input.truncate(INPUT_BYTES_MAX);
    input
}

fn mutate(input: &mut Vec<u8>, words: &[&[u8]], dice: &mut Dice) {
    let at = dice.below(input.len() + 1);
    let end = (at + dice.below(24)).min(input.len());
    match dice.below(8) {
        0 => drop(input.drain(at..end)),
        1 => {
            let piece = input[at..end].to_vec();
            let to = dice.below(input.len() + 1);
            input.splice(to..to, piece);
        }
        2 if at < input.len() => input[at] = dice.byte(),
        3 if at < input.len() => input[at] ^= 1 << dice.below(8),
        4 => input.insert(at, dice.byte()),
        5 => {
            // A word at the start of a line.
            let lines: Vec<_> = (0..input.len()).filter(|&i| input[i] == b'\n').collect();
            let to = if lines.is_empty() {
                0
            } else {
                lines[dice.below(lines.len())] + 1
            };
            let word = words[dice.below(words.len())];
            input.splice(to..to, word.iter().copied());
        }
        6 => {
            let word = words[dice.below(words.len())];
            input.splice(at..end, word.iter().copied());
        }
        _ => {
            let word = words[dice.below(words.len())];
            input.splice(at..at, word.iter().copied());
        }
    }
}

/// The smallest input found that still fails, and what is wrong with it.
fn smaller(
    property: &impl Fn(&[u8]) -> Outcome,
    mut input: Vec<u8>,
    mut wrong: String,
) -> (Vec<u8>, String) {
    let mut piece = input.len() / 2;
    while piece > 0 {
        let mut at = 0;
        while at + piece <= input.len() {
            let mut less = input.clone();
            less.drain(at..at + piece);
            match outcome(property, &less) {
                Err(still) => (input, wrong) = (less, still),
                Ok(_) => at += piece,
            }
        }
        piece /= 2;
    }
    (input, wrong)
}

#[test]
#[should_panic(expected = "found")]
fn what_is_wrong_is_found() {
    campaign("finds", &[b"aaaa"], &[b"x", b"b"], |input| {
        if input.windows(2).any(|pair| pair == b"xb") {
            return Err(format!("found {}", input.len()));
        }
        Ok(1)
    });
}

#[test]
fn an_input_that_fails_is_made_as_small_as_it_can_be() {
    let fails = |input: &[u8]| match input.contains(&b'x') {
        true => Err("x".to_owned()),
        false => Ok(1),
    };
    let (input, _) = smaller(&fails, b"abcdefxghijkl".to_vec(), String::new());
    assert_eq!(input, b"x");
}
