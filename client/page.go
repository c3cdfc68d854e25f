package client

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"maps"
	"net/http"
	"net/url"
)

// MaxPage is the most items that a server returns at once.
const MaxPage = 1000

// page is the shape of every list.
type page struct {
	Items      []json.RawMessage `json:"items"`
	NextCursor string            `json:"next_cursor"`
}

// list walks all pages of a list. After an error it ends.
func list[T any](ctx context.Context, c *Client, query url.Values, limit int64, path ...string) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		query = maps.Clone(query)
		if query == nil {
			query = url.Values{}
		}
		for cursor := ""; ; {
			var p page
			if _, err := c.do(ctx, call{method: http.MethodGet, path: path, query: query, out: &p, limit: limit}); err != nil {
				yield(none, err)
				return
			}
			for _, raw := range p.Items {
				var item T
				err := decode(raw, &item)
				if err != nil {
					err = &Error{Status: http.StatusOK, Code: CodeProtocol, Message: "an item of the list could not be read", Err: err}
				}
				if !yield(item, err) || err != nil {
					return
				}
			}
			if p.NextCursor == "" {
				return
			}
			if p.NextCursor == cursor {
				yield(none, &Error{Status: http.StatusOK, Code: CodeProtocol, Message: "the list does not advance", Err: errors.New("the same cursor came twice")})
				return
			}
			cursor = p.NextCursor
			query.Set("cursor", cursor)
		}
	}
}
