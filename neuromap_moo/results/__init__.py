"""What a search found: runs, their folders, tables, figures and reports."""
