package mask

// HideNulls says that the column is computed from masked ones: that a value of it is
// NULL tells about them, so NULL is replaced as well.
func (c *Column) HideNulls() { c.hideNulls = true }

// HidesNulls reports whether AppendNull has to be asked.
func (c *Column) HidesNulls() bool { return c.hideNulls }

// AppendNull appends what stands for a NULL.
func (c *Column) AppendNull(dst []byte) ([]byte, Result) {
	if !c.hideNulls || c.method == 0 {
		return dst, Unchanged
	}
	if c.class == JSONB && c.binary {
		return c.appendWhole(dst, []byte{jsonbVersion})
	}
	out, r := c.appendWhole(dst, nil)
	if r == IsNull {
		return dst, Unchanged
	}
	c.Masked++
	return out, r
}
