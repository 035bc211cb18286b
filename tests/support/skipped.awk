# Sums up what tests have left out: a line each of kind, test binary, test and what is missing, with tabs between them. `code` is the
# exit code of cargo: other than 0, tests have failed, or there were none to run.
BEGIN { FS = "\t" }
{ test = $2 FS $3 }
!seen[test]++ { tests++ }
!of_kind[$1, test]++ { count[$1]++ }
$1 == "other" && !said[$4, test]++ && !times[$4]++ { reasons[++last] = $4 }
END {
    if (count["captures"]) parts = count["captures"] " needed captures that are not here (docs/CAPTURES.md says how to get them)"
    for (at = 1; at <= last; at++) {
        reason = reasons[at] (times[reasons[at]] > 1 ? " (" times[reasons[at]] " tests)" : "")
        what = what (what ? "; " : "") reason
    }
    if (count["other"]) parts = parts (parts ? ", " : "") count["other"] " needed something else (" what ")"
    failed = code + 0 ? "cargo test failed (exit " code "); " : ""
    so_far = code + 0 ? " so far" : ""
    if (!tests) print failed "nothing was skipped" so_far
    else print failed "skipped" so_far ": " tests (tests == 1 ? " test: " : " tests: ") parts
}
