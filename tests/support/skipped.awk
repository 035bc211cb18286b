# Sums up what tests have left out: a line each of kind, test and what is missing, with tabs between them.
BEGIN { FS = "\t" }
!seen[$1 FS $2]++ { count[$1]++; if ($1 == "other") what = what (what ? "; " : "") $3 }
END {
    if (count["captures"]) parts = count["captures"] " needed captures that are not here (docs/CAPTURES.md says how to get them)"
    if (count["other"]) parts = parts (parts ? ", " : "") count["other"] " needed something else (" what ")"
    tests = count["captures"] + count["other"]
    if (!tests) print "nothing was skipped"
    else print "skipped: " tests (tests == 1 ? " test: " : " tests: ") parts
}
