//! Dependencies come from their registries with checksums, under allowed licences, and without known advisories
//! (`make audit`); and each of these checks is able to fail.

use std::fs;
use std::path::Path;

use crate::support::skipped::left_out_unless_ci;
use crate::support::{Ended, in_repository, python};

/// Files that the checks read.
const READ: &[&str] = &[
    "Cargo.lock",
    "Cargo.toml",
    "Makefile",
    ".ci/run",
    "ui/package.json",
    "ui/package-lock.json",
    "clients/ts/package.json",
    "clients/ts/package-lock.json",
    "benches/peers/package.json",
    "benches/peers/package-lock.json",
    "tests/support/requirements.txt",
    "tests/supply/policy.toml",
    "tests/supply/advisories.toml",
];

/// A day on which the advisories are not old.
const TODAY: &str = "2026-07-01";

/// The output of `cargo metadata` for one crate.
const METADATA: &str =
    r#"{"packages":[{"name":"left","version":"1.0.0","source":"registry","license":"LICENCE"}]}"#;

fn copied() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for path in READ {
        let to = folder.path().join(path);
        fs::create_dir_all(to.parent().expect("a folder above")).expect("made");
        fs::copy(in_repository(path), to).unwrap_or_else(|error| panic!("{path}: {error}"));
    }
    folder
}

fn edit(root: &Path, path: &str, change: impl Fn(&str) -> String) {
    let before = fs::read_to_string(root.join(path)).expect("copied");
    let after = change(&before);
    assert_ne!(before, after, "{path} has nothing to change");
    fs::write(root.join(path), after).expect("written");
}

/// Runs the checks on a folder, with this output of `cargo metadata` where it is given.
fn audit(root: &Path, metadata: Option<&str>, today: &str) -> Ended {
    let mut args =
        vec!["--root".to_owned(), root.display().to_string(), "--today".to_owned(), today.to_owned()];
    if let Some(metadata) = metadata {
        let file = root.join("metadata.json");
        fs::write(&file, metadata).expect("written");
        args.extend(["--metadata".to_owned(), file.display().to_string()]);
    }
    python("supply.py", &args.iter().map(String::as_str).collect::<Vec<_>>()).end()
}

/// The findings.
fn findings(ended: &Ended) -> Vec<&str> {
    ended.lines.iter().filter_map(|line| line.strip_prefix("     - ")).collect()
}

#[test]
fn dependencies_are_in_order() {
    let ended = python("supply.py", &[]).end();
    if let Some(line) = ended.lines.iter().find(|line| line.contains("LEFT OUT: ")) {
        left_out_unless_ci("licences of crates for other platforms", line.trim());
    }
    assert_eq!(ended.code(), Some(0), "{:#?}\n{}", ended.lines, ended.stderr);
    // The checks have read something.
    let count = |what: &str| {
        let line = ended.lines.iter().find(|line| line.contains(what)).expect(what);
        line.split(' ').find_map(|word| word.parse::<usize>().ok()).expect("a count")
    };
    assert!(count("crates of Cargo.lock come from") > 100);
    assert!(count("packages of ui/package-lock.json come from") > 10);
    assert!(count("packages of tests/support/requirements.txt are pinned") >= 4);
}

/// Cargo.lock with another version of a crate.
fn at_version(text: &str, name: &str, version: &str) -> String {
    let (before, after) = text.split_once(&format!("name = \"{name}\"\nversion = \"")).expect("the crate");
    let (_, after) = after.split_once('"').expect("its end");
    format!("{before}name = \"{name}\"\nversion = \"{version}\"{after}")
}

/// Changes a field of the first package of a lock file of npm.
fn npm_field(text: &str, field: &str, value: &str) -> String {
    let at = text.find("\"node_modules/").expect("a package");
    let (head, tail) = text.split_at(at);
    let (before, after) = tail.split_once(&format!("\"{field}\": \"")).expect("the field");
    let (_, after) = after.split_once('"').expect("its end");
    format!("{head}{before}\"{field}\": \"{value}\"{after}")
}

#[test]
fn each_check_can_fail() {
    type Change = fn(&str) -> String;
    let lock = "Cargo.lock";
    let npm = "clients/ts/package-lock.json";
    let cases: &[(&str, Change, &str)] = &[
        (
            lock,
            |t| {
                t.replacen(
                    "\"registry+https://github.com/rust-lang/crates.io-index\"",
                    "\"git+https://example.org/x#1\"",
                    1,
                )
            },
            "comes from git+https://example.org/x#1",
        ),
        (lock, |t| t.replacen("checksum = \"", "checksum = \"0", 1), "has no checksum"),
        (
            lock,
            |t| format!("{t}\n[[package]]\nname = \"beside\"\nversion = \"1.0.0\"\n"),
            "beside comes from a path",
        ),
        (
            lock,
            |t| at_version(t, "slab", "0.4.10"),
            "slab 0.4.10: RUSTSEC-2025-0047 (vulnerability, 2025-08-12), fixed in 0.4.11",
        ),
        (lock, |t| t.replacen("name = \"slab\"", "name = \"slap\"", 1), "slap has not been looked up"),
        (
            npm,
            |t| npm_field(t, "integrity", "sha1-AAAAAAAAAAAAAAAAAAAAAAAAAAA="),
            "has no sha512 in `integrity`",
        ),
        (
            npm,
            |t| {
                t.replacen(
                    "\"integrity\": \"",
                    "\"resolved\": \"https://example.org/x.tgz\", \"integrity\": \"",
                    1,
                )
            },
            "comes from https://example.org/x.tgz",
        ),
        (
            npm,
            |t| t.replacen("\"integrity\": \"", "\"hasInstallScript\": true, \"integrity\": \"", 1),
            "brings a script for its installation",
        ),
        (npm, |t| npm_field(t, "license", "GPL-3.0-only"), "is under `GPL-3.0-only`, which is not allowed"),
        ("tests/support/requirements.txt", |t| format!("{t}\nsix==1.17.0\n"), "six==1.17.0 has no hash"),
        ("tests/support/requirements.txt", |t| format!("{t}\nsix>=1\n"), "`six>=1` is not one version"),
        (
            "Makefile",
            |t| t.replacen("npm ci --ignore-scripts", "npm ci", 1),
            "npm ci without --ignore-scripts",
        ),
        (
            "Makefile",
            |t| t.replacen("npm ci --ignore-scripts", "npm install --ignore-scripts", 1),
            "no lock file pins",
        ),
        ("Makefile", |t| t.replacen("--require-hashes ", "", 1), "pip install without --require-hashes"),
    ];
    let metadata = METADATA.replace("LICENCE", "MIT");
    for (path, change, expected) in cases {
        let root = copied();
        edit(root.path(), path, change);
        let ended = audit(root.path(), Some(&metadata), TODAY);
        assert_eq!(ended.code(), Some(1), "{path}, {expected}: {ended:?}");
        let found = findings(&ended);
        // METADATA has one crate only.
        let found: Vec<_> =
            found.into_iter().filter(|f| !f.starts_with("cargo metadata does not list ")).collect();
        assert!(matches!(found[..], [one] if one.contains(expected)), "{path}, {expected}: {found:#?}");
    }
}

#[test]
fn licences_are_expressions() {
    let root = copied();
    let all = "left 1.0.0";
    let cases = [
        ("MIT OR GPL-3.0-only", None),
        ("MIT/Apache-2.0", None),
        ("(MIT OR GPL-3.0-only) AND Unicode-3.0", None),
        ("Apache-2.0 WITH LLVM-exception OR GPL-2.0-only", None),
        ("GPL-3.0-only", Some("is under `GPL-3.0-only`")),
        ("MIT AND GPL-3.0-only", Some("is under `MIT AND GPL-3.0-only`")),
        ("MIT AND (GPL-3.0-only OR LGPL-2.1-only)", Some("is under")),
        ("MIT WITH GPL-exception", Some("is under")),
        ("MIT OR", Some("is no licence expression")),
        ("(MIT", Some("is no licence expression")),
        ("MIT Apache-2.0", Some("is no licence expression")),
        ("", Some("names no licence")),
    ];
    for (licence, expected) in cases {
        let ended = audit(root.path(), Some(&METADATA.replace("LICENCE", licence)), TODAY);
        let about: Vec<_> = findings(&ended).into_iter().filter(|finding| finding.starts_with(all)).collect();
        match expected {
            None => assert!(about.is_empty(), "{licence}: {about:?}"),
            Some(text) => assert!(matches!(about[..], [one] if one.contains(text)), "{licence}: {about:?}"),
        }
    }
}

#[test]
fn old_advisories_are_a_warning() {
    let root = copied();
    let metadata = METADATA.replace("LICENCE", "MIT");
    let age = |today: &str| {
        let ended = audit(root.path(), Some(&metadata), today);
        ended.lines.iter().find(|line| line.contains("the advisories are of ")).expect("their date").clone()
    };
    assert_eq!(age("2026-07-01"), "ok   the advisories are of 2026-06-29, 2 days ago");
    assert_eq!(age("2026-12-01"), "WARN the advisories are of 2026-06-29, 155 days ago");
}

#[test]
fn an_advisory_can_be_ignored_until_a_day() {
    let root = copied();
    edit(root.path(), "Cargo.lock", |t| at_version(t, "slab", "0.4.10"));
    let ignored =
        "\n[[ignored]]\nid = \"RUSTSEC-2025-0047\"\nreason = \"not called here\"\nuntil = \"2026-07-31\"\n";
    edit(root.path(), "tests/supply/policy.toml", |t| format!("{t}{ignored}"));
    let metadata = METADATA.replace("LICENCE", "MIT");
    let found = |today: &str| {
        let ended = audit(root.path(), Some(&metadata), today);
        findings(&ended).iter().any(|finding| finding.contains("RUSTSEC-2025-0047"))
    };
    assert!(!found("2026-07-31"));
    assert!(found("2026-08-01"));
}
