package main

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// skipList holds the tests that may be skipped, by package directory.
type skipList map[string][]string

// readSkipList reads lines of "package test # reason". A line without a reason is an error.
func readSkipList(r io.Reader) (skipList, error) {
	list := skipList{}
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		entry, reason, _ := strings.Cut(lines.Text(), "#")
		words := strings.Fields(entry)
		if len(words) == 0 {
			continue
		}
		if len(words) != 2 || strings.TrimSpace(reason) == "" {
			return nil, fmt.Errorf("line %d: want \"package test  # reason\"", n)
		}
		list[words[0]] = append(list[words[0]], words[1])
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	return list, nil
}

func (l skipList) allows(pkg, test string) bool {
	for _, name := range l[pkg] {
		if name == "*" || name == test || strings.HasPrefix(test, name+"/") {
			return true
		}
	}
	return false
}
