"""supply.py [--root DIR] [--metadata FILE] [--today YYYY-MM-DD]: sources, licences and advisories of dependencies.

Compares the lock files with tests/supply/policy.toml and tests/supply/advisories.toml: sources and checksums,
licences, advisories, installation scripts. Prints a line for each check and each finding, and at the end the date
of the advisories. Exit code 1 if there is a finding, 2 if a file cannot be read. Needs Python's standard library
only.

Licences of crates come from `cargo metadata`, which may have to download crates of other platforms; `--metadata`
reads its output from a file instead. If the download fails, the licences for this platform are checked, and a line
names what was left out.
"""

import argparse
import datetime
import json
import os
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from pathlib import Path

SHA256 = re.compile(r"[0-9a-f]{64}")
# 64 bytes in base64.
SHA512 = re.compile(r"sha512-[A-Za-z0-9+/]{86}==")


class Unreadable(Exception):
    """A file that the checks need is missing or malformed."""


def load(path, parse):
    """The file as `parse` reads it; an error names it."""
    try:
        return parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Unreadable(f"{path}: {error}") from error


class Report:
    """Prints checks, and counts findings."""

    def __init__(self):
        self.findings = 0

    def check(self, what, findings, notes=()):
        findings = list(findings)
        self.findings += len(findings)
        print(f"{'FAIL' if findings else 'ok  '} {what}")
        for finding in findings:
            print(f"     - {finding}")
        for note in notes:
            print(f"     note: {note}")


# Versions, as SemVer 2.0 orders them (semver.org, 11).


def version(text):
    """A key to order versions by."""
    core, _, pre = text.partition("+")[0].partition("-")
    numbers = tuple(int(part) for part in core.split("."))
    # Numbers come before words, a shorter list before a longer, and a release behind all its pre-releases.
    words = tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in pre.split(".")) if pre else ()
    return numbers, not pre, words


def affected(text, ranges):
    at = version(text)
    return any(version(first) <= at < version(fixed) for first, fixed in ranges)


# Licences: SPDX expressions (annex D of the specification), and the `/` of older crates.


def permitted(expression, allowed):
    """Whether an expression can be met by allowed licences alone; ValueError if it is none."""
    tokens = re.findall(r"[()]|[^\s()]+", expression.replace("/", " OR "))
    take = lambda: tokens.pop(0) if tokens else ""

    def either():
        holds = both()
        while tokens[:1] == ["OR"]:
            take()
            other = both()
            holds = holds or other
        return holds

    def both():
        holds = one()
        while tokens[:1] == ["AND"]:
            take()
            other = one()
            holds = holds and other
        return holds

    def one():
        token = take()
        if token == "(":
            holds = either()
            if take() != ")":
                raise ValueError(f"`{expression}` is no licence expression")
            return holds
        if token in ("", ")", "AND", "OR", "WITH"):
            raise ValueError(f"`{expression}` is no licence expression")
        if tokens[:1] == ["WITH"]:
            take()
            token = f"{token} WITH {take()}"
        return token in allowed

    holds = either()
    if tokens:
        raise ValueError(f"`{expression}` is no licence expression")
    return holds


def licence_findings(named, allowed):
    """Findings of pairs of a name and its licence."""
    for name, licence in named:
        try:
            if not licence:
                yield f"{name} names no licence"
            elif not permitted(licence, allowed):
                yield f"{name} is under `{licence}`, which is not allowed"
        except ValueError as error:
            yield f"{name}: {error}"


# Crates.


def crates(report, root, policy, advisories, today, metadata):
    lock = load(root / "Cargo.lock", tomllib.loads)
    packages = [package for package in lock["package"] if "source" in package]
    # A package without a source is one of the workspace, or of a path outside of it.
    local = [package["name"] for package in lock["package"] if "source" not in package]
    own = load(root / "Cargo.toml", tomllib.loads)["package"]["name"]
    name = lambda package: f"{package['name']} {package['version']}"

    def sources():
        for package in packages:
            if package["source"] != policy["cargo"]["source"]:
                yield f"{name(package)} comes from {package['source']}"
            elif not SHA256.fullmatch(package.get("checksum", "")):
                yield f"{name(package)} has no checksum"
        for package in local:
            if package != own:
                yield f"{package} comes from a path"

    versions = defaultdict(list)
    for package in packages:
        versions[package["name"]].append(package["version"])
    twice = [f"{n} {', '.join(v)}" for n, v in sorted(versions.items()) if len(v) > 1]
    notes = [f"in more than one version: {'; '.join(twice)}"] if twice else []
    report.check(f"{len(packages)} crates of Cargo.lock come from crates.io, with checksums", sources(), notes)

    ignored = {row["id"]: row for row in policy.get("ignored", [])}

    def known():
        for row in advisories["advisories"]:
            hit = [v for v in versions.get(row["package"], []) if affected(v, row["affected"])]
            leave = ignored.get(row["id"])
            if hit and not (leave and leave["reason"] and today <= datetime.date.fromisoformat(leave["until"])):
                fixed = ", ".join(fixed for _, fixed in row["affected"])
                yield f"{row['package']} {', '.join(hit)}: {row['id']} ({row['kind']}, {row['date']}), fixed in {fixed}"
        for unknown in sorted(versions.keys() - set(advisories["crates"])):
            yield f"{unknown} has not been looked up in the database: tests/supply/advisories.toml does not name it"

    report.check(f"no advisory of {len(advisories['advisories'])} is about a version in Cargo.lock", known())

    told, left_out = metadata(root)
    licences = [(f"{p['name']} {p['version']}", p["license"]) for p in told["packages"] if p["source"]]
    notes = [left_out] if left_out else []
    allowed = set(policy["cargo"]["licences"])
    missing = [] if left_out else sorted({name(p) for p in packages} - {n for n, _ in licences})
    findings = [*licence_findings(licences, allowed), *(f"cargo metadata does not list {n}" for n in missing)]
    report.check(f"licences of {len(licences)} crates are allowed", findings, notes)


def cargo_metadata(root):
    """The output of `cargo metadata`, and what had to be left out of it."""
    base = [os.environ.get("CARGO", "cargo"), "metadata", "--locked", "--all-features", "--format-version", "1"]
    run = lambda *more: subprocess.run([*base, *more], cwd=root, capture_output=True, text=True, check=False)
    for more in (["--offline"], []):
        ended = run(*more)
        if ended.returncode == 0:
            return json.loads(ended.stdout), ""
    rustc = subprocess.run(["rustc", "-vV"], cwd=root, capture_output=True, text=True, check=True).stdout
    host = re.search(r"^host: (.*)$", rustc, re.M).group(1)
    reduced = run("--offline", "--filter-platform", host)
    if reduced.returncode != 0:
        raise Unreadable(f"cargo metadata: {ended.stderr.strip()}")
    return (
        json.loads(reduced.stdout),
        f"LEFT OUT: licences of crates for platforms other than {host}, which cargo could not download",
    )


# Packages of npm.


def npm(report, root, policy):
    npm_policy = policy["npm"]
    for path in npm_policy["locks"]:
        lock = load(root / path, json.loads)
        if lock.get("lockfileVersion") != 3:
            raise Unreadable(f"{path}: lockfileVersion 3 is expected")
        # The key "" is the package itself; a `link` is a folder of the repository.
        packages = {key: row for key, row in lock["packages"].items() if key and not row.get("link")}

        def sources(packages=packages):
            for key, row in packages.items():
                if not key.startswith("node_modules/"):
                    yield f"{key} is no package of the registry"
                elif not SHA512.fullmatch(row.get("integrity", "")):
                    yield f"{key} {row.get('version')} has no sha512 in `integrity`"
                # Without `resolved` npm takes its configured registry; `integrity` pins the content.
                elif not row.get("resolved", npm_policy["registry"]).startswith(npm_policy["registry"]):
                    yield f"{key} {row.get('version')} comes from {row['resolved']}"

        def scripts(packages=packages):
            for key, row in packages.items():
                if (
                    row.get("hasInstallScript")
                    and key.rpartition("node_modules/")[2] not in npm_policy["install_scripts"]
                ):
                    yield f"{key} {row.get('version')} brings a script for its installation"

        report.check(f"{len(packages)} packages of {path} come from the registry, with sha512", sources())
        report.check(f"none of {path} brings an installation script that is not allowed", scripts())
        named = [(f"{key} {row.get('version')}", row.get("license")) for key, row in packages.items()]
        report.check(f"licences of {path} are allowed", licence_findings(named, set(npm_policy["licences"])))


# Packages of Python.


def python(report, root, policy):
    for path in policy["python"]["requirements"]:
        text = load(root / path, str).replace("\\\n", " ")
        lines = [line.split(" #")[0].strip() for line in text.splitlines()]
        lines = [line for line in lines if line and not line.startswith("#")]

        def pins(lines=lines):
            for line in lines:
                pinned = re.fullmatch(
                    r"[A-Za-z0-9._-]+(\[[a-z0-9,_-]+\])?==[^\s;*]+( *;[^-]*)?((?: +--hash=sha256:[0-9a-f]{64})*)", line
                )
                if not pinned:
                    yield f"`{line[:60]}` is not one version of a package with its hashes"
                elif not pinned.group(3):
                    yield f"{line} has no hash"

        report.check(f"{len(lines)} packages of {path} are pinned, with hashes", pins())


# Commands that install.


def installing(report, root, policy):
    def commands():
        for path in policy["scripts"]["files"]:
            for number, line in enumerate(load(root / path, str).splitlines(), 1):
                if line.lstrip().startswith("#"):
                    continue
                where = f"{path}:{number}"
                if re.search(r"\bnpm (i|install|install-ci-test|it|cit|update|exec)\b|\bnpx\b", line):
                    yield f"{where}: npm installs what no lock file pins"
                if re.search(r"\bnpm (ci|clean-install)\b", line) and "--ignore-scripts" not in line:
                    yield f"{where}: npm ci without --ignore-scripts"
                if re.search(r"\bpip3? install\b", line) and "--require-hashes" not in line:
                    yield f"{where}: pip install without --require-hashes"

    report.check("installations follow the lock files, and run no scripts of packages", commands())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[2])
    parser.add_argument("--metadata", type=Path, help="what `cargo metadata` printed")
    parser.add_argument("--today", type=datetime.date.fromisoformat, default=datetime.date.today())
    args = parser.parse_args()

    folder = args.root / "tests/supply"
    policy = load(folder / "policy.toml", tomllib.loads)
    advisories = load(folder / "advisories.toml", tomllib.loads)
    metadata = (lambda _: (load(args.metadata, json.loads), "")) if args.metadata else cargo_metadata

    report = Report()
    crates(report, args.root, policy, advisories, args.today, metadata)
    npm(report, args.root, policy)
    python(report, args.root, policy)
    installing(report, args.root, policy)

    days = (args.today - datetime.date.fromisoformat(advisories["date"])).days
    old = days > policy["advisories_old_days"]
    print(f"{'WARN' if old else 'ok  '} the advisories are of {advisories['date']}, {days} days ago")
    print(f"{report.findings} findings")
    return 1 if report.findings else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Unreadable as error:
        print(f"supply.py: {error}", file=sys.stderr)
        sys.exit(2)
