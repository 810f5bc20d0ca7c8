"""Networks: layers, projections, activity, and counts for given slice boundaries."""
