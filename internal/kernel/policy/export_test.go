package policy

// Candidates is how many rules a decision of set about r evaluates.
func (set *Set) Candidates(r *Request) int { return len(set.index.collect(nil, r)) }
