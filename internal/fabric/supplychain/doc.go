// Package supplychain finds out what a container image carries to prove where
// it comes from, and whom each proof convinces: signatures, build provenance
// and bills of materials, checked against public keys that a tenant trusts.
// It needs no network, no transparency log and no clock: everything it reads
// comes from the image's own repository through Content, and equal content
// gives equal reports.
//
// # Where proofs are found
//
// Three conventions attach things to a digest, and Verify looks at all of them
// for the image and, if the image was chosen through one, for its index:
//
//	tag sha256-<hex>.sig   cosign 1 and 2, Tekton Chains: a manifest whose layers are signatures
//	tag sha256-<hex>.att   the same with attestations
//	referrers              OCI 1.1: manifests whose subject is the digest; also by
//	                       the tag sha256-<hex>, for registries without the API
//
// # What they are
//
// A layer's media type says how to read it:
//
//	…cosign.simplesigning.v1+json     the signed payload; the signature is an annotation of the layer
//	application/vnd.dsse.envelope.v1+json   a DSSE envelope around an in-toto statement
//	…sigstore.bundle…                 a Sigstore bundle: such an envelope, or a signature of the manifest's bytes
//	application/spdx+json, …cyclonedx+json, …   an SBOM, signed by nobody
//
// An in-toto statement names its subjects by digest, and its predicate type
// says what it proves: cosign's sign/v1 is a signature, SLSA provenance 0.2
// and 1 is provenance, SPDX and CycloneDX predicates are SBOMs. Others are
// reported and prove nothing that Verify judges.
//
// # What makes a proof
//
//	read → parse → a trusted key verifies it → its subject is the image → its content is what it claims
//
// What falls out on the way becomes a Finding with a stable Reason, and never
// hides a proof that stands. If the store fails there is an error and no
// report: absence is reported only when it was seen.
//
// A signature of the image is a simple signature, a sign/v1 statement or a
// signature of the manifest. cosign verify takes any bundle about the image
// for one, so that a key trusted to attest an SBOM could release images; here
// each kind of proof needs a key trusted for that use.
//
// A proof is about content, not about place: a signature copied from another
// repository is as good as one made here, as it is for cosign. The name that a
// signer gave the image is in Proof.Identity for policies that care.
//
// # Why not sigstore-go
//
// Its strength is what keyless signing needs: certificates, logs, timestamps.
// With public keys, no log and no timestamps (its WithKey and
// WithNoObserverTimestamps) what remains of it is the DSSE encoding and one
// call into crypto, at the price of 82 linked modules; it reads only bundles,
// and answers with one error where admission must tell missing, forged and
// unknown apart. Envelopes, bundles and payloads are small fixed formats, so
// they are read here, strictly, and tests hold the result against cosign.
package supplychain
