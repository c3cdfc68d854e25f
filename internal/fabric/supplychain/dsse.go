package supplychain

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"provost.dev/provost/internal/fabric/supplychain/strictjson"
)

// envelope is a DSSE envelope (github.com/secure-systems-lab/dsse, protocol
// and JSON encoding 1.0.2), decoded.
type envelope struct {
	payloadType string
	payload     []byte
	signatures  []signature
}

// envelopeJSON is the envelope on the wire, alone and inside a bundle.
type envelopeJSON struct {
	PayloadType string         `json:"payloadType"`
	Payload     string         `json:"payload"`
	Signatures  signaturesJSON `json:"signatures"`
}

type signatureJSON struct {
	KeyID string `json:"keyid"`
	Sig   string `json:"sig"`
	Cert  string `json:"cert"` // SLSA's GitHub generators put the certificate here
}

type signaturesJSON []signatureJSON

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (l *signaturesJSON) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	return strictjson.AppendArray(dec, (*[]signatureJSON)(l), MaxSignatures)
}

func parseEnvelope(raw []byte) (*envelope, error) {
	var wire envelopeJSON
	if err := strictjson.Unmarshal(raw, &wire); err != nil {
		return nil, malformed("DSSE envelope", err)
	}
	return wire.decode()
}

func (wire *envelopeJSON) decode() (*envelope, error) {
	if wire.PayloadType == "" || wire.Payload == "" || len(wire.Signatures) == 0 {
		return nil, defectf(Malformed, "DSSE envelope lacks payloadType, payload or signatures")
	}
	e := &envelope{payloadType: wire.PayloadType}
	var err error
	if e.payload, err = decodeBase64(wire.Payload); err != nil {
		return nil, defectf(Malformed, "DSSE payload: %v", err)
	}
	for i, s := range wire.Signatures {
		sig, err := decodeBase64(s.Sig)
		if err != nil || len(sig) == 0 {
			return nil, defectf(Malformed, "DSSE signature %d is not base64", i)
		}
		e.signatures = append(e.signatures, signature{sig, claimedSigner{hint: s.KeyID, certificate: s.Cert != ""}})
	}
	return e, nil
}

// decodeBase64 takes either alphabet, as the DSSE specification demands of
// readers, and only the one text that encodes the bytes: Go's decoder would
// let line ends and unused bits pass, so that a changed text still verified.
func decodeBase64(s string) ([]byte, error) {
	if strings.ContainsAny(s, "\r\n") {
		return nil, errors.New("base64 has line ends")
	}
	encoding := base64.StdEncoding
	if strings.ContainsAny(s, "-_") {
		encoding = base64.URLEncoding
	}
	b, err := encoding.Strict().DecodeString(s)
	if err != nil {
		return nil, fmt.Errorf("decode base64: %w", err)
	}
	return b, nil
}

// preAuthEncoding is what a DSSE signature signs: PAE(type, body) =
// "DSSEv1" SP LEN(type) SP type SP LEN(body) SP body.
func preAuthEncoding(payloadType string, payload []byte) []byte {
	head := fmt.Sprintf("DSSEv1 %d %s %d ", len(payloadType), payloadType, len(payload))
	return append([]byte(head), payload...)
}

func (v *verification) envelopeLayer(ctx context.Context, o *origin, _ *carrier, layer Descriptor, raw []byte) error {
	e, err := parseEnvelope(raw)
	if err != nil {
		return err
	}
	if layer.Annotations[certificateAnnotation] != "" {
		for i := range e.signatures {
			e.signatures[i].certificate = true
		}
	}
	return v.envelope(ctx, o, e)
}

// envelope judges an envelope wherever it was found. The payload is parsed
// before its signature is checked only to know what the signature should be for.
func (v *verification) envelope(ctx context.Context, o *origin, e *envelope) error {
	st, err := parseStatement(e.payloadType, e.payload)
	if err != nil {
		return err
	}
	kind := kindOfPredicate(st.PredicateType)
	o.guess = kind
	m := newMessage(preAuthEncoding(e.payloadType, e.payload))
	keys, err := v.convinced(ctx, m, e.signatures, useFor[kind])
	if err != nil {
		return err
	}
	s, err := v.subjectOf(st.digests())
	if err != nil {
		return err
	}
	proof := o.proof(kind, s, keys)
	if err := st.describe(&proof); err != nil {
		return err
	}
	v.report.add(proof)
	return nil
}

// useFor is what a key must be trusted for to vouch for a statement. Any
// trusted key will do for what nothing here judges.
var useFor = map[Kind]Use{KindSignature: UseSignature, KindProvenance: UseProvenance, KindSBOM: UseSBOM, KindOther: ""}
