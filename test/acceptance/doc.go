// Package acceptance tests the product from outside, as its users meet it: the
// built binary, its HTTP API, its command line, and the public tools that must
// work against it unmodified. Nothing of internal/ is imported; what the
// evidence contract says how to compute is computed here a second time, from
// its text.
//
// One server is shared by the tests; what counts or counts on silence makes a
// tenant of its own in it. Tests that end, break or reconfigure a server start
// another.
//
//	PROVOST_BIN               a binary to test instead of building one
//	CRANE, COSIGN             the tools, else PATH has them
//	PROVOST_REQUIRE_TOOLS=1   fail, do not skip, without the tools
//	PROVOST_REQUIRE_RUNC=1    fail, do not skip, without an OCI runtime
//	PROVOST_CRASH_ROUNDS      how often the crash test kills the server; default 10
//	PROVOST_CROSS_REQUESTS    how many requests the cross-tenant test makes; default 400
//	PROVOST_SEED              repeats a randomised test
//
// Tests are named by the rows of the conformance tables they check: TEN, ISO,
// AUT, WL, EVT, BUN, PFC, API and ASY of the evidence contract's digest, OMC of
// the task contract's.
package acceptance
