package policy_test

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/cedar-policy/cedar-go"

	"provost.dev/provost/internal/kernel/policy"
)

// plainValue converts without regard to any schema.
func plainValue(v any) cedar.Value {
	switch v := v.(type) {
	case string:
		return cedar.String(v)
	case bool:
		return cedar.Boolean(v)
	case int:
		return cedar.Long(v)
	case []string:
		elems := make([]cedar.Value, len(v))
		for i, e := range v {
			elems[i] = cedar.String(e)
		}
		return cedar.NewSet(elems...)
	case time.Time:
		return cedar.NewDatetime(v)
	case netip.Prefix:
		return cedar.IPAddr(v)
	case policy.Record:
		return plainRecord(v)
	}
	panic(fmt.Sprintf("no plain form of %T", v))
}
