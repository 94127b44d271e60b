"""What a run writes: its folder, tables, figures, statistics."""
