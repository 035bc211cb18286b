//! The loop: inputs that are changed at random, and kept where they bring an outcome that was not seen before.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Seek as _, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use super::mutate::{INPUT_BYTES_MAX, Random, mutate, words};
use crate::support::in_repository;

/// Reads an input and says in words what came of it. It panics where something is wrong.
pub(super) type Read = Box<dyn Fn(&[u8]) -> String>;

/// One reader of bytes from outside.
pub(super) struct Target {
    pub(super) name: &'static str,
    /// Good inputs, and those of `fuzz/corpus/<name>`.
    pub(super) seeds: Vec<Vec<u8>>,
    pub(super) read: Read,
}

/// An input on which a target panics.
#[derive(Debug)]
pub(super) struct Crash {
    pub(super) input: Vec<u8>,
    pub(super) why: String,
}

/// How far a run came.
#[derive(Debug)]
pub(super) struct Summary {
    pub(super) inputs: u64,
    /// Inputs with outcomes that none before them had.
    pub(super) new: Vec<Vec<u8>>,
}

/// More inputs than this are not kept to be changed again.
const KEPT_MAX: usize = 4_096;

impl Target {
    /// Reads one input.
    pub(super) fn try_one(&self, input: &[u8]) -> Result<String, Crash> {
        catch_unwind(AssertUnwindSafe(|| (self.read)(input))).map_err(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let why = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Crash { input: input.to_vec(), why: why.unwrap_or_default() }
        })
    }

    /// Reads every seed, and then changed ones while `goes_on` says so, which is asked with the number of inputs so far. The same
    /// seed of random numbers gives the same inputs.
    pub(super) fn fuzz(&self, random: u64, goes_on: impl FnMut(u64) -> bool) -> Result<Summary, Crash> {
        fs::create_dir_all(in_repository("target/found")).expect("a folder");
        let path = self.running_path();
        let result = self.changed(&mut Random(random), &File::create(&path).expect("a file"), goes_on);
        fs::remove_file(path).expect("it is there");
        result
    }

    /// Each input is written to `running` before it is read: what ends the process, or never ends, is found there.
    fn changed(
        &self,
        random: &mut Random,
        running: &File,
        mut goes_on: impl FnMut(u64) -> bool,
    ) -> Result<Summary, Crash> {
        let mut kept = self.seeds.clone();
        let words = words(&kept);
        let mut seen = HashSet::new();
        for seed in &self.seeds {
            note(running, seed).expect("a file to write");
            seen.extend(traits(&self.try_one(seed)?));
        }
        let mut summary = Summary { inputs: kept.len() as u64, new: Vec::new() };
        while goes_on(summary.inputs) {
            let mut input = kept[random.below(kept.len())].clone();
            let other = &kept[random.below(kept.len())];
            mutate(&mut input, other, &words, random);
            note(running, &input).expect("a file to write");
            summary.inputs += 1;
            let traits = traits(&self.try_one(&input)?);
            if !traits.is_subset(&seen) {
                seen.extend(traits);
                summary.new.push(input.clone());
                if kept.len() < KEPT_MAX {
                    kept.push(input);
                }
            }
        }
        Ok(summary)
    }

    fn running_path(&self) -> PathBuf {
        let thread = std::thread::current().name().unwrap_or("main").replace("::", "-");
        in_repository("target/found").join(format!("{}-running-{thread}", self.name))
    }

    /// A shorter input with the same panic message, numbers aside, as far as leaving parts out leads to one.
    pub(super) fn shortened(&self, mut crash: Crash) -> Crash {
        let mut part = crash.input.len() / 2;
        while part > 0 {
            let mut at = 0;
            while at < crash.input.len() {
                let mut shorter = crash.input.clone();
                shorter.drain(at..(at + part).min(shorter.len()));
                match self.try_one(&shorter) {
                    Err(again) if traits(&again.why) == traits(&crash.why) => crash = again,
                    _ => at += part,
                }
            }
            part /= 2;
        }
        crash
    }
}

/// Writes an input in the place of the one before.
fn note(mut file: &File, input: &[u8]) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(input)
}

/// What an outcome tells of the code that was reached: its pairs of words, without numbers and quoted texts.
fn traits(outcome: &str) -> HashSet<String> {
    let mut plain = String::new();
    let (mut is_text, mut is_escaped, mut last) = (false, false, ' ');
    for char in outcome.chars().take(INPUT_BYTES_MAX) {
        if is_text {
            is_text = is_escaped || char != '"';
            is_escaped = !is_escaped && char == '\\';
            continue;
        }
        is_text = char == '"';
        let shown = if char.is_ascii_digit() { '0' } else { char };
        if char.is_ascii() && shown != last {
            plain.push(shown);
        }
        last = shown;
    }
    let words: Vec<&str> = plain.split_ascii_whitespace().collect();
    let pairs = words.windows(2).map(|pair| pair.join(" "));
    pairs.chain(words.first().map(|word| (*word).to_owned())).collect()
}
