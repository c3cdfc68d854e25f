package app

import "flag"

// update rewrites the files that tests compare with: api/ and testdata/.
var update = flag.Bool("update", false, "write the published documents and golden files anew")
