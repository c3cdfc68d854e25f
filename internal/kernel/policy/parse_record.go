package policy

// ParseRecord reads attribute values from a JSON object, as ParseRequest reads
// those of a recorded one; no bytes at all are an empty record. Errors are
// worded for whoever wrote the object.
func ParseRecord(data []byte) (rec Record, err error) {
	if len(data) == 0 {
		return Record{}, nil
	}
	err = parseDocument(data, func(d *decoder) error {
		rec, err = d.record()
		return err
	})
	return rec, err
}
