package audit

// Attend and Checkpoint are what the keeper does at every tick.
func (s *Spool) Attend()           { s.attend() }
func (s *Spool) Checkpoint() error { return s.checkpoint(false) }
