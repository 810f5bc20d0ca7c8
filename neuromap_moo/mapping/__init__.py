"""Mappings: their rules, their files and their genotypes."""
