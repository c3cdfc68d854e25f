package store

// Queued is how many items wait to be taken into a transaction.
func (g *Group[T]) Queued() int { return len(g.queue) }

// SavepointMade reports whether the database knows of the present savepoint.
func (tx *Tx) SavepointMade() bool { return tx.savepoint == made }
